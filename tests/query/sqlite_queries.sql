-- what the replaced system's own users asked
SELECT * FROM quotes WHERE contract_id = 'CON.F.US.MNQ.Z26' AND received_timestamp BETWEEN '2026-11-18T00:00:00' AND '2026-11-30T00:00:00+00:00' ORDER BY received_timestamp, seq, pos
SELECT * FROM trades ORDER BY received_timestamp, seq, pos
SELECT * FROM market_depth ORDER BY received_timestamp, seq, pos LIMIT 50
SELECT * FROM sessions
SELECT COUNT(*) FROM quotes
SELECT COUNT(*), MIN(received_timestamp), MAX(received_timestamp) FROM trades
SELECT side, COUNT(*) AS n, SUM(volume) FROM market_depth GROUP BY side ORDER BY n DESC, side
SELECT depth_type, side, COUNT(*) FROM market_depth GROUP BY depth_type, side ORDER BY 1
SELECT trade_type, SUM(volume), AVG(price), MIN(price), MAX(price) FROM trades GROUP BY trade_type ORDER BY 1
SELECT SUM(price * volume) / SUM(volume) AS vwap FROM trades
SELECT SUM(CASE WHEN trade_type = 0 THEN volume ELSE -volume END) AS delta FROM trades
SELECT AVG(best_ask - best_bid) FROM quotes WHERE best_bid IS NOT NULL AND best_ask IS NOT NULL
SELECT AVG((best_ask - best_bid) / ((best_ask + best_bid) / 2) * 10000) FROM quotes
SELECT strftime('%Y-%m-%d %H:%M', received_timestamp) AS minute, COUNT(*), SUM(volume) FROM trades GROUP BY minute ORDER BY minute
SELECT substr(received_timestamp, 1, 16) AS minute, COUNT(*) FROM quotes GROUP BY 1 ORDER BY 1
SELECT date(received_timestamp), time(received_timestamp) FROM trades ORDER BY seq, pos LIMIT 20
SELECT strftime('%M', received_timestamp) / 5 * 5 AS bucket, COUNT(*) FROM trades GROUP BY bucket ORDER BY bucket
SELECT CAST(strftime('%s', received_timestamp) AS INTEGER) / 60 * 60 AS t, SUM(volume) FROM trades GROUP BY t ORDER BY t
SELECT unixepoch(received_timestamp) / 60, MAX(price) - MIN(price) FROM trades GROUP BY 1 ORDER BY 1
SELECT json_extract(raw_data, '$.price') = price, COUNT(*) FROM market_depth GROUP BY 1
SELECT json_extract(raw_data, '$.symbolId'), json_extract(raw_data, '$.volume') FROM trades ORDER BY seq, pos
SELECT raw_data ->> '$.timestamp', raw_data ->> 'type' FROM market_depth ORDER BY seq, pos LIMIT 9
SELECT raw_data -> '$.volume' FROM trades ORDER BY seq, pos LIMIT 9
SELECT json_extract(raw_data, '$.nothing') FROM trades LIMIT 3
SELECT COUNT(*) FROM market_depth WHERE json_extract(raw_data, '$.volume') > 2
SELECT json_valid(raw_data), json_type(raw_data, '$.volume'), json_type(raw_data, '$.timestamp') FROM trades LIMIT 2
SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name
SELECT tbl_name, type FROM sqlite_master ORDER BY tbl_name
SELECT name, type FROM pragma_table_info('trades') ORDER BY cid LIMIT 3

-- columns beside an aggregate
SELECT side, price, MAX(volume) FROM market_depth GROUP BY side, price ORDER BY side, price
SELECT seq, MAX(seq) FROM trades
SELECT seq, MIN(recv_ns), COUNT(*) FROM trades
SELECT *, MAX(recv_ns) FROM quotes
SELECT side, seq, received_timestamp, MAX(seq * 1000 + pos) FROM trades GROUP BY side ORDER BY side
SELECT contract_id, COUNT(*) FROM trades
SELECT symbol, price - price % 1 AS p, MIN(seq * 1000 + pos), seq FROM trades GROUP BY p ORDER BY p
SELECT substr(received_timestamp, 1, 15) m, MAX(seq), price FROM quotes q JOIN (SELECT 1 AS price) GROUP BY m ORDER BY m

-- arithmetic
SELECT volume / 2, volume % 2, -volume / 2, price / 2, volume * 1.5, volume + 1 FROM market_depth ORDER BY seq, pos LIMIT 9
SELECT 7 / 2, -7 / 2, 7 % 3, -7 % 3, 7 / 2.0, 7.5 % 2, 1 / 0, 1 % 0, 1.0 / 0, 5 / 2 * 2
SELECT 2147483647 + 1, 1000000 * 1000000, 60 * 60 * 24 * 1000 * 1000, 0.1 + 0.2, 1e3, .5
SELECT 6 & 3, 6 | 3, ~6, 1 << 10, 1024 >> 3
SELECT '5' + 3, '5.5' * 2, 'abc' + 1, '12abc' + 1, - '3'
SELECT abs(-5), abs(-5.5), round(2.5), round(-2.5), round(7), round(3.14159, 2), round(12345.678, 1)
SELECT max(1, 2, 3), min(4, 2.5), max(1, NULL), min('b', 'a'), max(volume, 2) FROM trades LIMIT 1
SELECT sum(volume) / count(*), sum(volume) * 1.0 / count(*), total(volume), avg(volume) FROM trades
SELECT sum(volume), total(volume), count(volume) FROM trades WHERE volume > 100000
SELECT sum(side = 0), sum(price > 29547), avg(side = 1), count(side = 0) FROM trades
SELECT volume > 1, price = 29547.0, NOT side, side AND 1, side OR 0, NULL > 1 FROM trades ORDER BY seq, pos LIMIT 9
SELECT count(*) FROM trades WHERE side
SELECT count(*) FROM trades WHERE NOT side AND volume
SELECT CASE WHEN side THEN 'sell' ELSE 'buy' END, count(*) FROM trades GROUP BY 1 ORDER BY 1
SELECT CASE side WHEN 0 THEN 'buy' WHEN 1 THEN 'sell' END AS who, count(*) FROM trades GROUP BY who ORDER BY who
SELECT (price > 29547) + (volume > 2) AS score, count(*) FROM market_depth GROUP BY score ORDER BY score
SELECT iif(price > 29547, 'up', 'down') AS way, count(*) FROM trades GROUP BY way ORDER BY way
SELECT ifnull(NULL, 3), coalesce(NULL, NULL, 'x'), nullif(1, 1), nullif(1, 2)
SELECT ifnull(best_bid, 0), coalesce(best_ask, best_bid, -1) FROM quotes ORDER BY seq LIMIT 30
SELECT sqrt(16), power(2, 10), ln(1), exp(0), floor(2.7), ceil(2.1), sign(-3), log10(1000), log(100), log(2, 8)

-- texts
SELECT 'a' || 1 || 2.5, price || ' x', volume || '' FROM trades ORDER BY seq, pos LIMIT 9
SELECT 1e16 || '', 0.1 + 0.2 || '', 1.0 || '', 123456789012345678 || '', -0.5 || ''
SELECT upper('abc'), lower('ABC'), length('hello'), length(12.5), length(NULL), trim('  x '), ltrim('xxa', 'x')
SELECT rtrim('axx', 'x'), replace('abcabc', 'b', 'z'), instr('hello', 'l'), instr('hello', 'z'), hex('AB')
SELECT substr('hello', 2, 3), substr('hello', -3), substr('hello', 0, 3), substr('hello', -10, 8), substr(12345, 2, 2)
SELECT unicode('A'), char(72, 105), quote('it''s'), quote(5), quote(2.5)
SELECT typeof(1), typeof(1.5), typeof('x'), typeof(NULL), typeof(1 / 2), typeof(1 + 1.0), typeof(1 = 1)
SELECT DISTINCT typeof(price), typeof(volume), typeof(received_timestamp), typeof(seq) FROM trades
SELECT typeof(sum(volume)), typeof(avg(volume)), typeof(max(price)), typeof(count(*)), typeof(total(side)) FROM trades
SELECT CAST('12abc' AS INTEGER), CAST(1.9 AS INTEGER), CAST(-1.9 AS INTEGER), CAST('3.7' AS INTEGER), CAST('x' AS REAL)
SELECT CAST(5 AS REAL), CAST(5 AS TEXT), CAST(2.5 AS TEXT), CAST('2.5' AS REAL), CAST(NULL AS INTEGER)
SELECT CAST(price AS INTEGER), CAST(price AS TEXT), CAST(volume AS REAL) FROM trades ORDER BY seq, pos LIMIT 9
SELECT printf('%d|%5d|%-5d|%05d|%+d', 42, 42, 42, 42, 42), printf('%.2f|%8.3f|%e', 3.14159, 2.5, 12345.678)
SELECT printf('%s|%10s|%-10s|', 'a', 'b', 'c'), printf('%x %X %o %%', 255, 255, 8), format('%s', 1.5)
SELECT printf('%d', 3.99), printf('%s', NULL), printf('%d', NULL), printf('%.1f', 2)
SELECT printf('%.2f', price) AS p, printf('%d@%s', volume, price) FROM trades ORDER BY seq, pos LIMIT 9
SELECT 'ABC' LIKE 'abc', 'ABC' LIKE 'a%', 'abc' LIKE 'A_C', 'x' NOT LIKE 'y', '50%' LIKE '50\%' ESCAPE '\', NULL LIKE 'a'
SELECT 'ABC' GLOB 'abc', 'ABC' GLOB 'A*', 'abc' GLOB 'a?c', 'abc' GLOB '[a-b]*', 'abc' GLOB '[^a]*', 'x' NOT GLOB 'y'
SELECT count(*) FROM trades WHERE symbol LIKE 'f.us.%'
SELECT count(*) FROM trades WHERE price LIKE '295%'
SELECT count(*) FROM market_depth WHERE side GLOB 'new_*'
SELECT DISTINCT side FROM market_depth ORDER BY side COLLATE NOCASE
SELECT 'a' = 'A' COLLATE NOCASE, 'a' < 'B', 'a' = 'A' COLLATE BINARY
SELECT group_concat(DISTINCT side) FROM trades WHERE side = 1
SELECT group_concat(x) FROM (SELECT DISTINCT depth_type AS x FROM market_depth WHERE depth_type = 3)
SELECT group_concat(x, ' / ') FROM (SELECT 1.5 AS x)

-- times
SELECT datetime(received_timestamp), datetime(exchange_timestamp) FROM trades ORDER BY seq, pos
SELECT strftime('%Y %m %d %H %M %S %j %w %W %%', received_timestamp) FROM quotes ORDER BY seq
SELECT strftime('%s', received_timestamp), strftime('%f', received_timestamp) FROM trades ORDER BY seq, pos
SELECT julianday(received_timestamp), unixepoch(received_timestamp) FROM trades ORDER BY seq, pos
SELECT datetime(received_timestamp, '+1 day'), datetime(received_timestamp, '-90 minutes') FROM trades ORDER BY seq, pos
SELECT date(received_timestamp, 'start of month', '+1 month', '-1 day') FROM trades GROUP BY 1
SELECT date(received_timestamp, 'weekday 1'), date(received_timestamp, 'start of year') FROM trades GROUP BY 1, 2
SELECT datetime(1703545200, 'unixepoch'), date(1703545200.6, 'unixepoch', '+1 year'), datetime(2460304.5)
SELECT date('2024-01-31', '+1 month'), date('2024-02-29', '+1 year'), date('2023-12-25', '-11 months')
SELECT time('12:34'), time('12:34:56.789'), datetime('2023-12-25 12:34'), datetime('2023-12-25T12:34:56Z')
SELECT datetime('2023-12-25T12:00:00+05:30'), datetime('nonsense'), date(NULL), date('2023-13-01'), julianday('x')
SELECT datetime('2023-12-25 12:00', '+1.5 hours'), time('12:00', '+00:30'), time('12:00', '-01:15:30')
SELECT julianday('2023-12-26') - julianday('2023-12-25'), (julianday('2023-12-25 12:00') - 2440587.5) * 86400.0
SELECT strftime('%H', '2023-12-25 09:00') = '09', strftime('%H', '2023-12-25 09:00') = 9
SELECT strftime('%H', received_timestamp) + 0 AS h, count(*) FROM trades GROUP BY h ORDER BY h
SELECT datetime(recv_ns / 1000000000, 'unixepoch') FROM trades ORDER BY seq, pos LIMIT 9
SELECT (julianday(received_timestamp) - julianday(exchange_timestamp)) * 86400 > 0, count(*) FROM trades GROUP BY 1
SELECT strftime('%Y', 'now') >= '2024', length(datetime('now')), length(CURRENT_TIMESTAMP), typeof(date())
SELECT date('2023-12-25', '+' || 5 || ' days'), date('2023-12-25', '-' || (2 + 1) || ' days')

-- comparisons of kinds
SELECT count(*) FROM trades WHERE price = '29547'
SELECT count(*) FROM trades WHERE price > 'abc'
SELECT count(*) FROM trades WHERE volume IN ('1', 2)
SELECT count(*) FROM trades WHERE price BETWEEN '29546' AND 29548
SELECT count(*) FROM trades WHERE received_timestamp > 5
SELECT count(*) FROM quotes WHERE best_bid IS NULL
SELECT count(*) FROM quotes WHERE best_bid IS NOT NULL AND best_ask NOTNULL
SELECT NULL IS NULL, 1 IS 1, 1 IS NOT 2, NULL IS 1, 1 IS NOT NULL, 1 == 1, 1 <> 2, 1 != 1
SELECT 1 IN (1, 2), 3 IN (1, 2), NULL IN (1), 1 NOT IN (2, 3), 2 BETWEEN 1 AND 3, 2 NOT BETWEEN 1 AND 3
SELECT count(*) FROM market_depth WHERE side = "ask"
SELECT [price], `volume`, "side" FROM trades ORDER BY seq, pos LIMIT 2

-- shapes of statements
SELECT DISTINCT volume FROM trades ORDER BY volume DESC
SELECT price FROM trades ORDER BY price DESC, seq LIMIT 3, 5
SELECT price FROM trades ORDER BY price, seq LIMIT 5 OFFSET 2
SELECT count(*) FROM (SELECT * FROM trades LIMIT -1)
SELECT best_bid FROM quotes ORDER BY best_bid, seq
SELECT best_bid FROM quotes ORDER BY best_bid DESC, seq
SELECT best_bid, best_ask FROM quotes ORDER BY best_bid ASC NULLS LAST, seq
SELECT t.price, q.best_bid FROM trades t JOIN quotes q ON q.seq < t.seq AND q.seq > t.seq - 5 ORDER BY t.seq, t.pos, q.seq
SELECT t.seq, (SELECT q.best_bid FROM quotes q WHERE q.recv_ns <= t.recv_ns ORDER BY q.recv_ns DESC LIMIT 1) AS bid FROM trades t ORDER BY t.seq, t.pos LIMIT 40
SELECT a.side, count(*) FROM trades a LEFT JOIN market_depth b ON a.seq = b.seq GROUP BY a.side ORDER BY a.side
SELECT count(*) FROM trades, sessions WHERE trades.session_id = sessions.session_id
SELECT count(*) FROM trades JOIN sessions USING (session_id)
SELECT count(*) FROM trades NATURAL JOIN (SELECT 0 AS side)
SELECT price FROM trades WHERE seq IN (SELECT seq FROM trades ORDER BY volume DESC, seq LIMIT 3) ORDER BY seq, pos
SELECT count(*) FROM trades t WHERE EXISTS (SELECT 1 FROM quotes q WHERE q.seq = t.seq - 1)
SELECT EXISTS (SELECT 1 FROM trades WHERE volume > 1000), NOT EXISTS (SELECT 1 FROM trades)
SELECT side, sum(volume) AS lots FROM trades GROUP BY side HAVING lots > 10 ORDER BY side
SELECT price, count(*) AS n FROM trades GROUP BY price HAVING count(*) > 1 ORDER BY n DESC, price LIMIT 9
WITH m AS (SELECT substr(received_timestamp, 1, 16) AS t, sum(volume) AS v FROM trades GROUP BY t) SELECT t, v, v / 2, v * 100 / (SELECT sum(v) FROM m) FROM m ORDER BY t
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5) SELECT x, x / 2 FROM c ORDER BY x
SELECT 1 AS a UNION SELECT 2 UNION ALL SELECT 2 ORDER BY a
SELECT price FROM trades EXCEPT SELECT price FROM market_depth ORDER BY 1
SELECT side FROM trades INTERSECT SELECT 1
VALUES (1, 'a'), (2, 'b')
SELECT seq, price - lag(price) OVER (ORDER BY seq, pos) AS d FROM trades ORDER BY seq, pos
SELECT seq, sum(volume) OVER (ORDER BY seq, pos ROWS BETWEEN 4 PRECEDING AND CURRENT ROW) AS v FROM trades ORDER BY seq, pos
SELECT side, row_number() OVER (PARTITION BY side ORDER BY seq, pos) AS n, price FROM trades ORDER BY seq, pos
SELECT seq, avg(price) OVER w, max(volume) OVER w FROM trades WINDOW w AS (ORDER BY seq, pos ROWS 9 PRECEDING) ORDER BY seq, pos
SELECT seq, ntile(4) OVER (ORDER BY seq, pos), rank() OVER (ORDER BY price) FROM trades ORDER BY seq, pos
SELECT first_value(price) OVER (PARTITION BY side ORDER BY seq, pos) AS f, seq FROM trades ORDER BY seq, pos
SELECT count(*) FILTER (WHERE side = 0), sum(volume) FILTER (WHERE side) FROM trades
SELECT sum(volume) FILTER (WHERE side = 1) / 2, total(volume) FILTER (WHERE side = 0) FROM trades
SELECT count(DISTINCT price), sum(DISTINCT volume) FROM trades
SELECT main.trades.price FROM main.trades ORDER BY seq, pos LIMIT 1
SELECT   count( * ) ,  max( price )AS  m , 'a,b' , (1 ,2) = (1,2) FROM trades;

-- shapes that people write
SELECT t.*, MAX(seq * 1000 + pos) FROM trades t
SELECT * FROM (SELECT * FROM trades) WHERE price > 0 ORDER BY seq, pos LIMIT 3
WITH t AS (SELECT *, row_number() OVER (PARTITION BY side ORDER BY recv_ns, pos) AS rn FROM trades) SELECT * FROM t WHERE rn = 1 ORDER BY side
SELECT side, COUNT(*) c FROM trades GROUP BY side HAVING c > 1 ORDER BY MAX(price), side
SELECT AVG(price) FROM trades WHERE date(received_timestamp) = '2026-11-18'
SELECT count(*) FROM trades WHERE datetime(received_timestamp) > datetime('2026-11-18 11:00:00')
SELECT count(*) FROM trades WHERE received_timestamp >= '2026-11-18T11:30' AND received_timestamp < '2026-11-18T12:00:00+00:00'
SELECT CASE WHEN count(*) > 0 THEN sum(volume) * 1.0 / count(*) ELSE 0 END FROM trades
SELECT max(price) - min(price) AS r, (max(price) - min(price)) / 0.25 AS ticks FROM trades
SELECT round(avg(price), 2), cast(sum(volume) AS REAL) / count(*), coalesce(sum(volume), 0) FROM trades
SELECT count(*) * 100.0 / (SELECT count(*) FROM trades), count(*) * 100 / (SELECT count(*) FROM trades) FROM trades WHERE side = 0
SELECT side FROM trades GROUP BY side HAVING sum(volume) / count(*) >= 1 ORDER BY sum(volume) / count(*) DESC, side
SELECT typeof(max(volume) / 2), max(volume) || '', printf('%d', sum(volume)), max(volume) > 2, length(max(received_timestamp)) FROM trades
SELECT strftime('%s', max(received_timestamp)) - strftime('%s', min(received_timestamp)) FROM trades
SELECT julianday(max(received_timestamp)) - julianday(min(received_timestamp)), substr(max(received_timestamp), 1, 10) FROM trades
SELECT CASE WHEN max(price) THEN 'some' END, upper(group_concat(DISTINCT symbol)), count(*) > 5 AND max(volume) FROM trades
SELECT strftime('%Y-%m-%dT%H:%M:00', received_timestamp) AS m, count(*), min(price), max(price) FROM trades GROUP BY m ORDER BY m
SELECT a.seq, abs(a.price - b.price) AS d FROM trades a, trades b WHERE b.seq = (SELECT max(c.seq) FROM trades c WHERE c.seq < a.seq) ORDER BY a.seq, a.pos, b.pos
SELECT price, (SELECT count(*) FROM trades u WHERE u.price = t.price) AS n FROM trades t GROUP BY price ORDER BY price
SELECT seq, volume - lag(volume, 1, 0) OVER (ORDER BY seq, pos) AS d, sum(volume) OVER () / 2 AS half FROM trades ORDER BY seq, pos
SELECT seq, 100 * volume / sum(volume) OVER (PARTITION BY side) AS share FROM trades ORDER BY seq, pos
SELECT m, v, v - lag(v) OVER (ORDER BY m) AS d FROM (SELECT substr(received_timestamp, 1, 16) AS m, sum(volume) AS v FROM trades GROUP BY m) ORDER BY m
SELECT side, avg(x) FROM (SELECT side, price * volume AS x FROM trades UNION ALL SELECT 2, 1.5) GROUP BY side ORDER BY side
SELECT avg(d), avg(d * d) - avg(d) * avg(d) FROM (SELECT price - lag(price) OVER (ORDER BY seq, pos) AS d FROM trades)
SELECT q.best_bid, t.price FROM trades t LEFT JOIN quotes q ON q.contract_id = t.contract_id AND q.seq = (SELECT max(seq) FROM quotes WHERE seq < t.seq) ORDER BY t.seq, t.pos
SELECT (best_bid + best_ask) / 2 AS mid, best_ask - best_bid AS spread FROM quotes WHERE best_ask > best_bid ORDER BY seq LIMIT 20
SELECT DISTINCT strftime('%H', received_timestamp) AS h, side FROM trades ORDER BY h, side
SELECT count(*) FROM trades WHERE contract_id LIKE '%' || 'mnq' || '%' AND NOT (side = 1 OR volume > 5)
SELECT 'total', sum(volume) FROM trades UNION ALL SELECT side, sum(volume) FROM market_depth GROUP BY side ORDER BY 2, 1
SELECT price, sum(CASE side WHEN 0 THEN volume END) AS bought, sum(CASE side WHEN 1 THEN volume ELSE 0 END) AS sold FROM trades GROUP BY price ORDER BY price DESC
SELECT depth_type, price, max(seq * 1000 + pos), volume FROM market_depth WHERE depth_type IN (1, 2) GROUP BY depth_type, price ORDER BY 1, 2
SELECT count(*) FILTER (WHERE volume > 1) * 1.0 / count(*) AS share, sum(volume > 1) * 1.0 / count(*) FROM trades
SELECT (CAST(strftime('%H', received_timestamp) AS INTEGER) * 60 + strftime('%M', received_timestamp)) / 15 AS q, count(*) FROM trades GROUP BY q ORDER BY q
SELECT seq, CASE WHEN price > lag(price) OVER w THEN 1 WHEN price < lag(price) OVER w THEN -1 ELSE 0 END AS tick FROM trades WINDOW w AS (ORDER BY seq, pos) ORDER BY seq, pos
SELECT date(received_timestamp) AS d, count(DISTINCT strftime('%H', received_timestamp)) FROM trades GROUP BY d
SELECT COUNT(*), NULL, 1 = 1, 'x' IS NOT NULL, -price, +volume FROM trades WHERE seq = (SELECT min(seq) FROM trades)
SELECT volume AS v, v_ FROM (SELECT volume, volume + 1 AS v_ FROM trades WHERE v_ > 2) ORDER BY v LIMIT 3
SELECT total(volume) / count(*), total(price > 0), avg(NOT side) FROM trades GROUP BY contract_id
SELECT max(side, pos), min(price, volume * 1.0), max(side, 0) + 1 FROM trades ORDER BY seq, pos LIMIT 5
-- A zero has no sign as text.
SELECT (-(price - price)) || 'x', CAST(-0.0 * volume AS TEXT), printf('%g|%.2f', -(price - price), -0.001 * volume) FROM trades
