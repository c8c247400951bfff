BEGIN TRANSACTION;
CREATE TABLE adapters (
	id INTEGER NOT NULL, 
	namespace VARCHAR(96) NOT NULL, 
	name VARCHAR(96) NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_adapters PRIMARY KEY (id), 
	CONSTRAINT uq_adapters_namespace_name UNIQUE (namespace, name)
);
INSERT INTO "adapters" VALUES(1,'team','news','2026-11-26 15:33:49.981277');
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0009');
CREATE TABLE alias_moves (
	id INTEGER NOT NULL, 
	adapter_id INTEGER NOT NULL, 
	alias VARCHAR(96) NOT NULL, 
	version_id INTEGER, 
	author VARCHAR(128) NOT NULL, 
	at DATETIME NOT NULL, number INTEGER, 
	CONSTRAINT pk_alias_moves PRIMARY KEY (id), 
	CONSTRAINT fk_alias_moves_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id), 
	CONSTRAINT fk_alias_moves_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
CREATE TABLE aliases (
	adapter_id INTEGER NOT NULL, 
	alias VARCHAR(96) NOT NULL, 
	version_id INTEGER NOT NULL, 
	CONSTRAINT pk_aliases PRIMARY KEY (adapter_id, alias), 
	CONSTRAINT fk_aliases_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id), 
	CONSTRAINT fk_aliases_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
CREATE TABLE base_edges (
	child_id INTEGER NOT NULL, 
	parent_id INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	detail JSON NOT NULL, 
	verified BOOLEAN NOT NULL, 
	author VARCHAR(128) NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_base_edges PRIMARY KEY (child_id, parent_id, kind), 
	CONSTRAINT fk_base_edges_child_id FOREIGN KEY(child_id) REFERENCES bases (id), 
	CONSTRAINT fk_base_edges_parent_id FOREIGN KEY(parent_id) REFERENCES bases (id)
);
CREATE TABLE base_names (
	name VARCHAR(512) NOT NULL, 
	base_id INTEGER NOT NULL, 
	CONSTRAINT pk_base_names PRIMARY KEY (name), 
	CONSTRAINT fk_base_names_base_id FOREIGN KEY(base_id) REFERENCES bases (id)
);
CREATE TABLE bases (
	id INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	tensors INTEGER NOT NULL, 
	parameters BIGINT NOT NULL, 
	created_at DATETIME NOT NULL, struct VARCHAR(64) DEFAULT '' NOT NULL, complete BOOLEAN DEFAULT 1 NOT NULL, license VARCHAR(64) DEFAULT '' NOT NULL, config TEXT DEFAULT '{}' NOT NULL, author VARCHAR(128) DEFAULT '' NOT NULL, 
	CONSTRAINT pk_bases PRIMARY KEY (id), 
	CONSTRAINT fk_bases_digest FOREIGN KEY(digest) REFERENCES blobs (digest), 
	CONSTRAINT uq_bases_digest UNIQUE (digest)
);
CREATE TABLE blobs (
	digest VARCHAR(64) NOT NULL, 
	size BIGINT NOT NULL, 
	CONSTRAINT pk_blobs PRIMARY KEY (digest)
);
INSERT INTO "blobs" VALUES('2eef3330d188410f6d436cc38dfce139f670502c4627bfedab03a3babec0080b',592);
INSERT INTO "blobs" VALUES('bc489b7d01bef08286ffe03e0b52ad37c2dc513b0b8e9c5175a1940d991b81dc',158);
INSERT INTO "blobs" VALUES('e7e2c40ce2f4cc3f1f156c5165ddd6d8ea5a5d64702778e75d448ffb30729602',22);
INSERT INTO "blobs" VALUES('301f5577ef9eae383fa928e914b46f14f8712264bdebe01ee68c26f88417743f',592);
INSERT INTO "blobs" VALUES('7e953fe901ba6774dc98ac9a0c7b7343c0499436792101743f3e274082ce15e1',22);
CREATE TABLE drafts (
	namespace VARCHAR(96) NOT NULL, 
	name VARCHAR(96) NOT NULL, 
	branch VARCHAR(96) NOT NULL, 
	files JSON NOT NULL, 
	author VARCHAR(128) NOT NULL, 
	updated_at DATETIME NOT NULL, basis VARCHAR(64) DEFAULT '' NOT NULL, 
	CONSTRAINT pk_drafts PRIMARY KEY (namespace, name, branch)
);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	author VARCHAR(128) NOT NULL, 
	action VARCHAR(32) NOT NULL, 
	adapter_id INTEGER, 
	version_id INTEGER, 
	detail JSON NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (id), 
	CONSTRAINT fk_events_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id), 
	CONSTRAINT fk_events_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
INSERT INTO "events" VALUES(1,'2026-11-26 15:33:49.981277','ada','push',1,1,'{"digest": "f569de85627a5a68ebacc1b274c12429992b32ee38a6f41a3fbb9c117b9a0c6a"}');
INSERT INTO "events" VALUES(2,'2026-11-26 15:33:50.422843','ada','push',1,2,'{"digest": "e566b8c5b6cce70b3f924570418700b892a79a5e11b07911d50436e5f2d7bffe"}');
CREATE TABLE export_files (
	export_id INTEGER NOT NULL, 
	path VARCHAR(1024) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_export_files PRIMARY KEY (export_id, path), 
	CONSTRAINT fk_export_files_digest FOREIGN KEY(digest) REFERENCES blobs (digest), 
	CONSTRAINT fk_export_files_export_id FOREIGN KEY(export_id) REFERENCES exports (id)
);
CREATE TABLE exports (
	id INTEGER NOT NULL, 
	version_id INTEGER NOT NULL, 
	request VARCHAR(64) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	created_at DATETIME NOT NULL, profile VARCHAR(128) DEFAULT '' NOT NULL, author VARCHAR(128) DEFAULT '' NOT NULL, 
	CONSTRAINT pk_exports PRIMARY KEY (id), 
	CONSTRAINT fk_exports_version_id FOREIGN KEY(version_id) REFERENCES versions (id), 
	CONSTRAINT uq_exports_version_id_request UNIQUE (version_id, request)
);
CREATE TABLE files (
	version_id INTEGER NOT NULL, 
	path VARCHAR(1024) NOT NULL, 
	digest VARCHAR(64) NOT NULL, size BIGINT DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_files PRIMARY KEY (version_id, path), 
	CONSTRAINT fk_files_digest FOREIGN KEY(digest) REFERENCES blobs (digest), 
	CONSTRAINT fk_files_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
INSERT INTO "files" VALUES(1,'README.md','e7e2c40ce2f4cc3f1f156c5165ddd6d8ea5a5d64702778e75d448ffb30729602',22);
INSERT INTO "files" VALUES(1,'adapter_config.json','bc489b7d01bef08286ffe03e0b52ad37c2dc513b0b8e9c5175a1940d991b81dc',158);
INSERT INTO "files" VALUES(1,'adapter_model.safetensors','2eef3330d188410f6d436cc38dfce139f670502c4627bfedab03a3babec0080b',592);
INSERT INTO "files" VALUES(2,'README.md','7e953fe901ba6774dc98ac9a0c7b7343c0499436792101743f3e274082ce15e1',22);
INSERT INTO "files" VALUES(2,'adapter_config.json','bc489b7d01bef08286ffe03e0b52ad37c2dc513b0b8e9c5175a1940d991b81dc',158);
INSERT INTO "files" VALUES(2,'adapter_model.safetensors','301f5577ef9eae383fa928e914b46f14f8712264bdebe01ee68c26f88417743f',592);
CREATE TABLE garbage (
	digest VARCHAR(64) NOT NULL, 
	size BIGINT NOT NULL, 
	marked_at DATETIME NOT NULL, 
	claimed_at DATETIME, 
	collected_at DATETIME, 
	CONSTRAINT pk_garbage PRIMARY KEY (digest)
);
CREATE TABLE jobs (
	id INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	request JSON NOT NULL, 
	namespace VARCHAR(96) NOT NULL, 
	author VARCHAR(128) NOT NULL, 
	grants JSON NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	attempts INTEGER NOT NULL, 
	worker VARCHAR(128) NOT NULL, 
	what VARCHAR(128) NOT NULL, 
	done BIGINT NOT NULL, 
	total BIGINT NOT NULL, 
	result JSON NOT NULL, 
	error JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	beat_at DATETIME, 
	finished_at DATETIME, token_id BIGINT, while_open BOOLEAN DEFAULT 0 NOT NULL, base VARCHAR(256) DEFAULT '' NOT NULL, needs_torch BOOLEAN DEFAULT 1 NOT NULL, policy JSON, turn BIGINT DEFAULT '0' NOT NULL, losses INTEGER DEFAULT '0' NOT NULL, able_at DATETIME, 
	CONSTRAINT pk_jobs PRIMARY KEY (id)
);
CREATE TABLE labels (
	version_id INTEGER NOT NULL, 
	"key" VARCHAR(128) NOT NULL, 
	value VARCHAR(256) NOT NULL, 
	CONSTRAINT pk_labels PRIMARY KEY (version_id, "key"), 
	CONSTRAINT fk_labels_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
CREATE TABLE lineage (
	child_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	parent_digest VARCHAR(64) NOT NULL, 
	parent_label VARCHAR(1024) NOT NULL, 
	weight DOUBLE NOT NULL, 
	CONSTRAINT pk_lineage PRIMARY KEY (child_id, position), 
	CONSTRAINT fk_lineage_child_id FOREIGN KEY(child_id) REFERENCES merges (version_id)
);
CREATE TABLE merges (
	version_id INTEGER NOT NULL, 
	recipe JSON NOT NULL, 
	certificate JSON NOT NULL, 
	CONSTRAINT pk_merges PRIMARY KEY (version_id), 
	CONSTRAINT fk_merges_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
CREATE TABLE metrics (
	version_id INTEGER NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	dataset VARCHAR(256) NOT NULL, 
	split VARCHAR(128) NOT NULL, 
	value DOUBLE NOT NULL, 
	higher_is_better BOOLEAN NOT NULL, 
	author VARCHAR(128) NOT NULL, 
	created_at DATETIME NOT NULL, score DOUBLE DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_metrics PRIMARY KEY (version_id, name, dataset, split), 
	CONSTRAINT fk_metrics_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
CREATE TABLE module_types (
	version_id INTEGER NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	count INTEGER NOT NULL, 
	rank_min INTEGER NOT NULL, 
	rank_max INTEGER NOT NULL, 
	CONSTRAINT pk_module_types PRIMARY KEY (version_id, name), 
	CONSTRAINT fk_module_types_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
INSERT INTO "module_types" VALUES(1,'q_proj',1,2,2);
INSERT INTO "module_types" VALUES(2,'q_proj',1,2,2);
CREATE TABLE namespaces (
	name VARCHAR(96) NOT NULL, 
	public BOOLEAN NOT NULL, 
	CONSTRAINT pk_namespaces PRIMARY KEY (name)
);
CREATE TABLE registry (
	id VARCHAR(32) NOT NULL, 
	moved_to TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_registry PRIMARY KEY (id)
);
INSERT INTO "registry" VALUES('a849b3fbba894f8492cb3f8b53e688f4','');
CREATE TABLE tasks (
	version_id INTEGER NOT NULL, 
	task VARCHAR(128) NOT NULL, base VARCHAR(1024) DEFAULT '' NOT NULL, 
	CONSTRAINT pk_tasks PRIMARY KEY (version_id, task), 
	CONSTRAINT fk_tasks_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
INSERT INTO "tasks" VALUES(1,'topics','/home/ada/models/tiny');
CREATE TABLE tokens (
	id INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	grants JSON NOT NULL, 
	author VARCHAR(128) NOT NULL, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME, 
	last_used_at DATETIME, 
	revoked_at DATETIME, 
	CONSTRAINT pk_tokens PRIMARY KEY (id), 
	CONSTRAINT uq_tokens_digest UNIQUE (digest)
);
CREATE TABLE tombstones (
	adapter_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	weights VARCHAR(64) NOT NULL, 
	is_banned BOOLEAN NOT NULL, 
	reason TEXT NOT NULL, 
	author VARCHAR(128) NOT NULL, 
	at DATETIME NOT NULL, 
	CONSTRAINT pk_tombstones PRIMARY KEY (adapter_id, number), 
	CONSTRAINT fk_tombstones_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id)
);
CREATE TABLE "uploads" (
	id VARCHAR(64) NOT NULL, 
	owner VARCHAR(128) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	size BIGINT NOT NULL, 
	received BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_uploads PRIMARY KEY (id)
);
CREATE TABLE versions (
	id INTEGER NOT NULL, 
	adapter_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	base_id INTEGER, 
	base_hint VARCHAR(1024) NOT NULL, 
	variant VARCHAR(32) NOT NULL, 
	task_type VARCHAR(64) NOT NULL, 
	rank_min INTEGER NOT NULL, 
	rank_max INTEGER NOT NULL, 
	alpha DOUBLE NOT NULL, 
	parameters BIGINT NOT NULL, 
	bytes BIGINT NOT NULL, 
	dtype VARCHAR(16) NOT NULL, 
	author VARCHAR(128) NOT NULL, 
	message TEXT NOT NULL, 
	card TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	yanked_at DATETIME, target VARCHAR(64), 
	CONSTRAINT pk_versions PRIMARY KEY (id), 
	CONSTRAINT fk_versions_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id), 
	CONSTRAINT fk_versions_base_id FOREIGN KEY(base_id) REFERENCES bases (id), 
	CONSTRAINT uq_versions_adapter_id_digest UNIQUE (adapter_id, digest), 
	CONSTRAINT uq_versions_adapter_id_number UNIQUE (adapter_id, number)
);
INSERT INTO "versions" VALUES(1,1,1,'f569de85627a5a68ebacc1b274c12429992b32ee38a6f41a3fbb9c117b9a0c6a',NULL,'/home/ada/models/tiny','lora','CAUSAL_LM',2,2,4.0,88,772,'F32','ada','','# Trained with seed 0
','2026-11-26 15:33:49.981277',NULL,NULL);
INSERT INTO "versions" VALUES(2,1,2,'e566b8c5b6cce70b3f924570418700b892a79a5e11b07911d50436e5f2d7bffe',NULL,'/home/ada/models/tiny','lora','CAUSAL_LM',2,2,4.0,88,772,'F32','ada','','# Trained with seed 1
','2026-11-26 15:33:50.422843',NULL,NULL);
CREATE INDEX ix_adapters_name_namespace ON adapters (name, namespace);
CREATE INDEX ix_base_names_base_id ON base_names (base_id);
CREATE INDEX ix_versions_author_id ON versions (author, id);
CREATE INDEX ix_versions_base_hint_id ON versions (base_hint, id);
CREATE INDEX ix_versions_base_id_id ON versions (base_id, id);
CREATE INDEX ix_versions_bytes_id ON versions (bytes, id);
CREATE INDEX ix_versions_digest ON versions (digest);
CREATE INDEX ix_versions_rank_max_id ON versions (rank_max, id);
CREATE INDEX ix_versions_variant_id ON versions (variant, id);
CREATE INDEX ix_alias_moves_adapter_id_id ON alias_moves (adapter_id, id);
CREATE INDEX ix_aliases_version_id ON aliases (version_id);
CREATE INDEX ix_events_adapter_id_id ON events (adapter_id, id);
CREATE INDEX ix_files_digest ON files (digest);
CREATE INDEX ix_labels_key_value_version_id ON labels ("key", value, version_id);
CREATE INDEX ix_metrics_name_dataset_value_version_id ON metrics (name, dataset, value, version_id);
CREATE INDEX ix_metrics_name_value_version_id ON metrics (name, value, version_id);
CREATE INDEX ix_module_types_name_version_id ON module_types (name, version_id);
CREATE INDEX ix_tasks_task_version_id ON tasks (task, version_id);
CREATE INDEX ix_lineage_parent_digest ON lineage (parent_digest);
CREATE INDEX ix_bases_struct ON bases (struct);
CREATE INDEX ix_base_edges_parent_id ON base_edges (parent_id);
CREATE INDEX ix_export_files_digest ON export_files (digest);
CREATE INDEX ix_tasks_task_base_version_id ON tasks (task, base, version_id);
CREATE INDEX ix_metrics_name_score_version_id ON metrics (name, score, version_id);
CREATE INDEX ix_metrics_name_dataset_score_version_id ON metrics (name, dataset, score, version_id);
CREATE INDEX ix_uploads_created_at ON uploads (created_at);
CREATE INDEX ix_jobs_namespace_id ON jobs (namespace, id);
CREATE INDEX ix_jobs_queued ON jobs (turn, id) WHERE state = 'queued';
CREATE INDEX ix_jobs_running ON jobs (beat_at, id) WHERE state = 'running';
CREATE INDEX ix_jobs_open ON jobs (namespace, id) WHERE state IN ('queued', 'running');
CREATE INDEX ix_garbage_marked_at ON garbage (marked_at);
CREATE INDEX ix_tombstones_digest ON tombstones (digest);
CREATE INDEX ix_tombstones_weights ON tombstones (weights);
COMMIT;
