"""A catalog of any size, filled within PostgreSQL: popular and rare bases and tasks, every fourth adapter pushed twice.

A few of the 40 bases, 200 tasks and 1,000 teams have most of the adapters: the most popular base a sixth, the most
popular task one in fourteen. Each has 24 words of a card, which are only in the full text: the most common word is in
more than half of all. The same size gives the same catalog.
"""

from __future__ import annotations

import psycopg

BASES, TASKS, TEAMS, WORDS = 40, 200, 1000, 20_000

_FILL = """
CREATE TEMPORARY TABLE drawn AS
  SELECT i AS id,
    CASE WHEN i <= {adapters} THEN i ELSE (i - {adapters}) * 4 END AS adapter,
    CASE WHEN i <= {adapters} THEN 1 ELSE 2 END AS number,
    hashint8(i)::bigint + 2147483648 AS dice,
    1 + floor({bases} * power(random(), 2))::int AS base,
    1 + floor({tasks} * power(random(), 2))::int AS task,
    1 + floor({teams} * power(random(), 2))::int AS team,
    random() AS quality,
    timestamptz '2026-01-01' + i * interval '25 second' AS at
  FROM generate_series(1, {versions}) i;
INSERT INTO adapters (id, namespace, name, created_at)
  SELECT id, 'team' || team, 'adapter' || id, at FROM drawn WHERE id <= {adapters};
INSERT INTO blobs (digest, size)
  SELECT encode(sha256(('base' || i)::bytea), 'hex'), 1 FROM generate_series(1, {bases}) i;
INSERT INTO blobs (digest, size)
  SELECT encode(sha256((file || id)::bytea), 'hex'), 1000 FROM drawn, unnest(ARRAY['config', 'weights']) file;
INSERT INTO bases (id, digest, tensors, parameters, struct, complete, license, created_at)
  SELECT i, encode(sha256(('base' || i)::bytea), 'hex'), 291, 8000000000, '', true, '', timestamptz '2026-01-01'
  FROM generate_series(1, {bases}) i;
INSERT INTO base_names (name, base_id) SELECT 'org/base' || i, i FROM generate_series(1, {bases}) i;
INSERT INTO versions (id, adapter_id, number, digest, base_id, target, base_hint, variant, task_type, rank_min,
    rank_max, alpha, parameters, bytes, dtype, author, message, card, created_at, yanked_at)
  SELECT id, adapter, number, encode(sha256(('version' || id)::bytea), 'hex'), nullif(base, {bases}), NULL,
    'org/base' || base, 'lora', 'CAUSAL_LM', 8, 4 << (dice % 5)::int, 16, 3000000, 6000000 + dice % 1000000, 'BF16',
    'user' || team % 300, 'run ' || id, '', at, CASE WHEN dice % 100 = 0 THEN at END
  FROM drawn;
INSERT INTO files (version_id, path, digest, size)
  SELECT id, path, encode(sha256((file || id)::bytea), 'hex'), 1000 FROM drawn,
    (VALUES ('config', 'adapter_config.json'), ('weights', 'adapter_model.safetensors')) AS names (file, path);
INSERT INTO tasks (version_id, task, base)
  SELECT id, 'task' || task, CASE WHEN base = {bases} THEN 'org/base{bases}'
      ELSE encode(sha256(('base' || base)::bytea), 'hex') END FROM drawn;
INSERT INTO labels (version_id, key, value) SELECT id, 'run', 'run' || id FROM drawn WHERE dice % 3 = 0;
INSERT INTO module_types (version_id, name, count, rank_min, rank_max)
  SELECT id, name, 32, 8, 8 FROM drawn, unnest(ARRAY['q_proj', 'k_proj', 'v_proj', 'o_proj']) name;
INSERT INTO metrics (version_id, name, dataset, split, value, higher_is_better, score, author, created_at)
  SELECT id, 'accuracy', 'data' || task, '', sqrt(quality), true, sqrt(quality), 'ci', at FROM drawn;
INSERT INTO metrics (version_id, name, dataset, split, value, higher_is_better, score, author, created_at)
  SELECT id, 'loss', 'data' || task, '', 3 - 2 * quality, false, 2 * quality - 3, 'ci', at
  FROM drawn WHERE dice % 2 = 0;
DROP INDEX ix_search_texts_document;
INSERT INTO search_texts (version_id, document)
  SELECT id, (format('team%s:1A adapter%s:1A task%s:1B org:1B base%s:1B lora:1C q:1C k:1C v:1C o:1C proj:1C '
        'run:1D %s:1D ', team, adapter, task, base, id) ||
    CASE WHEN base < {bases} THEN chr(57344) || base || ':1B ' ELSE '' END ||
    (SELECT string_agg('w' || floor({words} * power(random(), 3))::int || ':1D', ' ')
       FROM generate_series(1, 24) WHERE drawn.id > 0))::tsvector
  FROM drawn;
CREATE INDEX ix_search_texts_document ON search_texts USING gin (document);
INSERT INTO aliases (adapter_id, alias, version_id) SELECT adapter, 'prod', id FROM drawn WHERE number = 1;
INSERT INTO alias_moves (adapter_id, alias, version_id, number, author, at)
  SELECT adapter, 'prod', id, number, 'ci', at FROM drawn WHERE number = 1;
INSERT INTO events (at, author, action, adapter_id, version_id, detail)
  SELECT at, 'ci', 'push', adapter, id, '{{}}' FROM drawn;
SELECT setval(pg_get_serial_sequence('adapters', 'id'), {adapters} + 1);
SELECT setval(pg_get_serial_sequence('versions', 'id'), {versions} + 1);
SELECT setval(pg_get_serial_sequence('bases', 'id'), {bases} + 1);
"""


def fill(url: str, adapters: int) -> int:
    """Fill the empty catalog at ``url``, a PostgreSQL with the schema; returns how many versions it has then."""
    sizes = {"adapters": adapters, "versions": adapters + adapters // 4}
    with psycopg.connect(url) as connection:
        # Each row below refers to one above: looking that up again for every row would take most of the time.
        connection.execute("SET session_replication_role = replica; SET work_mem = '256MB'")
        connection.execute("SET maintenance_work_mem = '1GB'; SELECT setseed(0.5)")
        connection.execute(_FILL.format(**sizes, bases=BASES, tasks=TASKS, teams=TEAMS, words=WORDS))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return sizes["versions"]
