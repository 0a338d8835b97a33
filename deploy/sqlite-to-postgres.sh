#!/bin/sh
# Copies a stopped server's SQLite file into a PostgreSQL database that a shard of the same version has set up and that
# nobody uses. psql's own variables (PGHOST, PGUSER, PGDATABASE, …) say which database. See docs/operating.md.
set -eu

sqlite=${1:?usage: sqlite-to-postgres.sh FILE}
null='(no value)'

ask() {
    psql --quiet --no-align --tuples-only --set ON_ERROR_STOP=1 --command "$1"
}

# Both engines have the same tables; what differs is how bytes are written.
columns_of() {
    ask "SELECT string_agg($2, ', ' ORDER BY ordinal_position) FROM information_schema.columns
         WHERE table_schema = current_schema() AND table_name = '$1'"
}

test "$(sqlite3 "$sqlite" 'SELECT MAX(number) FROM schema_migrations')" = \
    "$(ask 'SELECT MAX(number) FROM schema_migrations')" || {
    echo 'the two databases are not of the same version: start the same gatehouse-homeserver once on each' >&2
    exit 1
}

tables=$(sqlite3 "$sqlite" "SELECT name FROM sqlite_schema
    WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'schema_migrations' ORDER BY name")
for table in $tables; do
    names=$(columns_of "$table" 'column_name')
    values=$(columns_of "$table" "CASE data_type
        WHEN 'bytea' THEN format('CASE WHEN %1\$s IS NULL THEN NULL ELSE ''\\x'' || hex(%1\$s) END', column_name)
        ELSE column_name::text END")
    ask "TRUNCATE $table"
    sqlite3 -csv -nullvalue "$null" "$sqlite" "SELECT $values FROM $table" |
        ask "COPY $table ($names) FROM STDIN WITH (FORMAT csv, NULL '$null')"
    kept=$(sqlite3 "$sqlite" "SELECT COUNT(*) FROM $table")
    copied=$(ask "SELECT COUNT(*) FROM $table")
    test "$kept" = "$copied" || { echo "$table: $copied of $kept rows were copied" >&2; exit 1; }
    echo "$table: $copied"
done

# Keys that the engine numbers by itself go on behind the copied ones.
for column in $(ask "SELECT table_name || '.' || column_name FROM information_schema.columns
    WHERE table_schema = current_schema() AND is_identity = 'YES'"); do
    table=${column%.*} key=${column#*.}
    ask "SELECT setval(pg_get_serial_sequence('$table', '$key'), COALESCE(MAX($key), 0) + 1, false) FROM $table" >/dev/null
done
