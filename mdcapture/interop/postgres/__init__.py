"""PostgreSQL, for several users: sessions go there, are read from there, and come from the replaced system's database.

connection   an address without a secret, and what a server says when it refuses
tables       the schema's declaration as tables, indexes and views
publish      sessions of the lake to the server: again and again, each row once
catalog      sessions on the server, read like those of a folder
moving       the replaced system's tables into sessions of the lake
"""
