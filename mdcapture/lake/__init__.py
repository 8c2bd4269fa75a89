"""What is on disk: the schema, the journal, and the one way from it to sealed Parquet files."""
