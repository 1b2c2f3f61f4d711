"""SQL from anywhere reads the inventory and nothing else, and changes nothing."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from holdfast.errors import HoldfastError
from holdfast.inventory.query import Inventory, open_inventory
from holdfast.inventory.query_statement import QueryError
from query_world import file_row, write_inventory

SECRET = "s3cr3t-w0rd"
WHO = f"holdfast_query_{os.getpid()}"


@dataclass(frozen=True)
class Den:
    """An inventory with what must not be reached around it."""

    folder: Path
    inventory: Inventory
    shard: Path
    port: int

    def fill(self, sql: str) -> str:
        """The attack with this world's places."""
        for word, value in {
            "SECRET": self.folder / "secret.csv",
            "UNNAMED": self.shard.parent / "unnamed.parquet",
            "SHARD": self.shard,
            "NEW": self.folder / "new",
            "BASE": self.folder / "base.duckdb",
            "SERVER": f"127.0.0.1:{self.port}",
            "WHO": WHO,
        }.items():
            sql = sql.replace(word, str(value))
        return sql

    def contents(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def den(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Den]:
    folder = tmp_path_factory.mktemp("den")
    place = write_inventory(folder / "inventory", {"files": [[file_row("a.pt")]]})
    (shard,) = place.rglob("*.parquet")
    (folder / "secret.csv").write_text(f"word\n{SECRET}\n")
    duckdb.sql(f"SELECT '{SECRET}' AS path").write_parquet(str(shard.parent / "unnamed.parquet"))
    with duckdb.connect(str(folder / "base.duckdb")) as base:
        base.execute(f"CREATE TABLE words AS SELECT '{SECRET}' AS word")
    os.environ[WHO] = SECRET
    with socket.create_server(("127.0.0.1", 0)) as server, open_inventory(place, spill=folder / "spill") as inventory:
        server.settimeout(0)
        found = Den(folder, inventory, shard, server.getsockname()[1])
        before = found.contents()
        yield found
        assert found.contents() == before, "a query wrote something"
        with pytest.raises(BlockingIOError):
            server.accept()  # nobody has called
    del os.environ[WHO]


READS = """
SELECT * FROM read_csv('SECRET')
SELECT * FROM read_csv_auto('SECRET')
SELECT * FROM read_text('SECRET')
SELECT * FROM read_blob('SECRET')
SELECT * FROM read_json('SECRET')
SELECT * FROM read_json_objects('SECRET')
SELECT * FROM read_ndjson('SECRET')
SELECT * FROM read_single_csv_file('SECRET')
SELECT * FROM sniff_csv('SECRET')
SELECT * FROM read_parquet('UNNAMED')
SELECT * FROM read_parquet(['SHARD', 'UNNAMED'])
SELECT * FROM parquet_scan('UNNAMED')
SELECT * FROM parquet_metadata('UNNAMED')
SELECT * FROM parquet_schema('UNNAMED')
SELECT * FROM parquet_kv_metadata('UNNAMED')
SELECT * FROM parquet_bloom_probe('UNNAMED', 'path', 'a')
SELECT * FROM read_duckdb('BASE')
SELECT * FROM glob('/etc/*')
SELECT * FROM glob('SECRET')
SELECT * FROM 'SECRET'
SELECT * FROM "SECRET"
SELECT * FROM 'UNNAMED'
SELECT * FROM read_text('/proc/self/environ')
SELECT * FROM read_text('file://SECRET')
SELECT * FROM query('FROM read_text(''SECRET'')')
SELECT * FROM query_table('SECRET')
SELECT (SELECT content FROM read_text('SECRET'))
WITH a AS MATERIALIZED (FROM read_text('SECRET')) FROM a
PIVOT (FROM read_csv('SECRET')) ON word
EXPLAIN ANALYZE SELECT * FROM read_text('SECRET')
DESCRIBE SELECT * FROM read_csv('SECRET')
SUMMARIZE SELECT * FROM read_csv('SECRET')
SUMMARIZE 'SECRET'
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''SECRET'')'))
SELECT getenv('WHO')
SELECT * FROM inventory
SELECT * FROM connection
SELECT * FROM den
SELECT * FROM read_csv('http://SERVER/a.csv')
SELECT * FROM read_parquet('https://SERVER/a.parquet')
SELECT * FROM read_parquet('s3://SERVER/a.parquet')
SELECT * FROM 'http://SERVER/a.csv'
SELECT * FROM arrow_scan(1, 2, 3)
SELECT * FROM pandas_scan(1)
SELECT * FROM python_map_function(1)
"""
WRITES = """
COPY files TO 'NEW'
COPY (SELECT 1) TO 'NEW' (FORMAT csv)
COPY (SELECT 1) TO 'SHARD' (FORMAT parquet)
COPY (SELECT 1) TO 'SHARD' (FORMAT parquet, USE_TMP_FILE false)
COPY (SELECT 1) TO '/dev/stdout'
COPY (PIVOT files ON path) TO 'SHARD' (USE_TMP_FILE false)
COPY FROM DATABASE memory TO other
EXPLAIN COPY (SELECT 1) TO 'SHARD' (USE_TMP_FILE false)
EXPLAIN ANALYZE COPY (SELECT 1) TO 'SHARD' (FORMAT parquet, USE_TMP_FILE false)
EXPLAIN ANALYZE EXPLAIN ANALYZE COPY (SELECT 1) TO 'SHARD' (USE_TMP_FILE false)
EXPLAIN (ANALYZE) COPY (SELECT 1) TO 'SHARD' (USE_TMP_FILE false)
EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1
WITH a AS (COPY (SELECT 1) TO 'NEW') FROM a
FROM (COPY (SELECT 1) TO 'NEW')
SELECT 1) AS a; COPY (SELECT 1) TO 'NEW'; SELECT * FROM (SELECT 1
SELECT 1; COPY (SELECT 1) TO 'NEW'
EXPORT DATABASE 'NEW'
IMPORT DATABASE 'NEW'
ATTACH 'BASE'
ATTACH 'NEW' AS other
DETACH memory
USE memory
CREATE TABLE t (a INT)
CREATE TEMP TABLE t AS FROM files
CREATE TABLE t AS PIVOT files ON path
CREATE VIEW t AS SELECT 1
CREATE OR REPLACE VIEW files AS SELECT 1
CREATE MACRO files() AS TABLE SELECT 1
CREATE SECRET (TYPE s3)
CREATE SCHEMA other
DROP VIEW files
ALTER VIEW files RENAME TO other
COMMENT ON VIEW files IS 'a'
INSERT INTO files (path) VALUES ('a')
INSERT INTO files (path) VALUES ('a') RETURNING path
WITH a AS (INSERT INTO files (path) VALUES ('a') RETURNING path) FROM a
WITH a AS (DELETE FROM files RETURNING path) FROM a
UPDATE files SET path = 'a'
DELETE FROM files
MERGE INTO files USING files f ON true WHEN MATCHED THEN DELETE
INSTALL httpfs
FORCE INSTALL httpfs FROM 'http://SERVER'
LOAD httpfs
LOAD 'SECRET'
SET enable_external_access = true
SET GLOBAL lock_configuration = false
SET VARIABLE a = 1
RESET lock_configuration
RESET ALL
PRAGMA enable_profiling
PRAGMA threads = 1
PRAGMA database_list
PRAGMA table_info('files')
CALL pragma_version()
CALL enable_logging(storage = 'file', storage_path = 'NEW')
SELECT * FROM enable_logging(storage = 'file', storage_path = 'NEW')
SELECT * FROM enable_logging(storage = 'stdout')
SELECT * FROM enable_profiling(save_location = 'NEW')
SELECT * FROM query('COPY (SELECT 1) TO ''NEW''')
PREPARE a AS SELECT 1
EXECUTE a
DEALLOCATE a
BEGIN
COMMIT
CHECKPOINT
VACUUM
ANALYZE
"""


@pytest.mark.parametrize("attack", READS.strip().split("\n"))
def test_nothing_else_is_read(den: Den, attack: str) -> None:
    with pytest.raises(QueryError) as caught:
        list(den.inventory.ask(den.fill(attack)).rows)
    assert SECRET not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("attack", WRITES.strip().split("\n"))
def test_nothing_is_changed(den: Den, attack: str) -> None:
    before = den.contents()
    with pytest.raises(QueryError):
        list(den.inventory.ask(den.fill(attack)).rows)
    with pytest.raises(HoldfastError):
        den.inventory.count(den.fill(attack))
    assert den.contents() == before
    assert list(den.inventory.ask("SELECT path FROM files").rows) == [("a.pt",)]


def test_what_a_shard_names_is_read_and_no_more(den: Den) -> None:
    """The shards themselves may be read by name: they are the inventory."""
    assert list(den.inventory.ask(f"SELECT path FROM read_parquet('{den.shard}')").rows) == [("a.pt",)]
    assert list(den.inventory.ask("FROM duckdb_secrets()").rows) == []


def test_settings_are_closed(den: Den) -> None:
    names = (
        "enable_external_access",
        "python_enable_replacements",
        "autoload_known_extensions",
        "autoinstall_known_extensions",
        "allow_community_extensions",
        "allow_persistent_secrets",
        "enable_progress_bar_print",  # it would go to standard output
    )
    for name in names:
        assert list(den.inventory.ask(f"SELECT current_setting('{name}')").rows) == [(False,)]
    assert list(den.inventory.ask("SELECT current_setting('lock_configuration')").rows) == [(True,)]
    (room,) = next(den.inventory.ask("SELECT current_setting('max_temp_directory_size')").rows)
    assert room == "9.3 GiB"  # of memory five times, so that no query fills the disk
