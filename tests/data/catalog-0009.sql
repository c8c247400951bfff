BEGIN TRANSACTION;
CREATE TABLE adapters (
	id INTEGER NOT NULL, 
	namespace VARCHAR(96) NOT NULL, 
	name VARCHAR(96) NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_adapters PRIMARY KEY (id), 
	CONSTRAINT uq_adapters_namespace_name UNIQUE (namespace, name)
);
INSERT INTO "adapters" VALUES(1,'team','science','2026-11-24 03:26:33.285531');
INSERT INTO "adapters" VALUES(2,'team','history','2026-11-24 03:26:33.331220');
INSERT INTO "adapters" VALUES(3,'team','blend','2026-11-24 03:26:33.558472');
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
INSERT INTO "alias_moves" VALUES(1,2,'prod',2,'ada','2026-11-24 03:26:33.331220',1);
CREATE TABLE aliases (
	adapter_id INTEGER NOT NULL, 
	alias VARCHAR(96) NOT NULL, 
	version_id INTEGER NOT NULL, 
	CONSTRAINT pk_aliases PRIMARY KEY (adapter_id, alias), 
	CONSTRAINT fk_aliases_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id), 
	CONSTRAINT fk_aliases_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
INSERT INTO "aliases" VALUES(2,'prod',2);
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
INSERT INTO "base_edges" VALUES(2,1,'quantized_from','{"bits": 8}',0,'ada','2026-11-24 07:53:38.478776');
CREATE TABLE base_names (
	name VARCHAR(512) NOT NULL, 
	base_id INTEGER NOT NULL, 
	CONSTRAINT pk_base_names PRIMARY KEY (name), 
	CONSTRAINT fk_base_names_base_id FOREIGN KEY(base_id) REFERENCES bases (id)
);
INSERT INTO "base_names" VALUES('HuggingFaceTB/SmolLM2-135M-Instruct',1);
INSERT INTO "base_names" VALUES('SmolLM2-int8',2);
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
INSERT INTO "bases" VALUES(1,'58c97fb27c9f0e85cd6d79036fc9d5a1ccefd27f63dc581be17b52103d3076fb',1,480,'2026-11-24 03:26:33.285531','',1,'apache-2.0','{"architectures":["LlamaForCausalLM"],"model_type":"llama"}','');
INSERT INTO "bases" VALUES(2,'abababababababababababababababababababababababababababababababab',1,480,'2026-11-24 07:53:38.478776','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',0,'apache-2.0','{}','ada');
CREATE TABLE blobs (
	digest VARCHAR(64) NOT NULL, 
	size BIGINT NOT NULL, 
	CONSTRAINT pk_blobs PRIMARY KEY (digest)
);
INSERT INTO "blobs" VALUES('58c97fb27c9f0e85cd6d79036fc9d5a1ccefd27f63dc581be17b52103d3076fb',177);
INSERT INTO "blobs" VALUES('22f8866f05b0ca0241cd0be7a26059f9853a25c777d1ff6b5611d3c0ad6f87ed',1112);
INSERT INTO "blobs" VALUES('a711a901dab1a057e17790b8e273222ffdb09cc53685a13132483a66e0a4f700',1858776);
INSERT INTO "blobs" VALUES('baf50da5a62f4778249ba62c9d92533aab9cd6692d3438b0ee74510a2c4fded5',1858776);
INSERT INTO "blobs" VALUES('64e3acb1c5a00130929e701bc455ce5c2cd9ab562579859849747057e70d5e0c',26792);
INSERT INTO "blobs" VALUES('70519f1c4e07ee9d6fa72e59c3431e336c8391730a1d973ce6b6a4e72e173cdb',2827);
INSERT INTO "blobs" VALUES('80006631e69e00691b16919ed291ea1f4060ba61687914ddd33dc1810972d1f2',3702168);
INSERT INTO "blobs" VALUES('abababababababababababababababababababababababababababababababab',177);
INSERT INTO "blobs" VALUES('1212121212121212121212121212121212121212121212121212121212121212',5);
CREATE TABLE drafts (
	namespace VARCHAR(96) NOT NULL, 
	name VARCHAR(96) NOT NULL, 
	branch VARCHAR(96) NOT NULL, 
	files JSON NOT NULL, 
	author VARCHAR(128) NOT NULL, 
	updated_at DATETIME NOT NULL, basis VARCHAR(64) DEFAULT '' NOT NULL, 
	CONSTRAINT pk_drafts PRIMARY KEY (namespace, name, branch)
);
INSERT INTO "drafts" VALUES('team','half','','[["README.md", "1212121212121212121212121212121212121212121212121212121212121212", 5]]','ada','2026-11-26 00:44:01.558840','');
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
INSERT INTO "events" VALUES(1,'2026-11-24 03:26:33.285531','ada','push',1,1,'{"digest": "74824d86c206d78e5315e551af4b2b910028a5eea66dbe0c8677cba115b67ba4"}');
INSERT INTO "events" VALUES(2,'2026-11-24 03:26:33.285531','ada','metric',1,1,'{"metric": "accuracy=0.9@sciq", "replaced": null}');
INSERT INTO "events" VALUES(3,'2026-11-24 03:26:33.331220','ada','push',2,2,'{"digest": "16824e9c5137fad0883ee4917dd4c04968dd53e65b0f2442073d888b2723fe7d"}');
INSERT INTO "events" VALUES(4,'2026-11-24 03:26:33.331220','ada','tag',2,2,'{"alias": "prod"}');
INSERT INTO "events" VALUES(5,'2026-11-24 03:26:33.558472','ada','push',3,3,'{"digest": "9c9a97cfae2cca70d0f2e4c676a0da25498dafd833721a853698971ebf597bb9"}');
INSERT INTO "events" VALUES(6,'2026-11-24 07:53:38.478776','ada','base add',NULL,NULL,'{"digest": "abababababababababababababababababababababababababababababababab", "names": ["SmolLM2-int8"]}');
INSERT INTO "events" VALUES(7,'2026-11-24 07:53:38.478776','ada','base relate',NULL,NULL,'{"child": "abababababababababababababababababababababababababababababababab", "parent": "58c97fb27c9f0e85cd6d79036fc9d5a1ccefd27f63dc581be17b52103d3076fb", "kind": "quantized_from", "bits": 8}');
INSERT INTO "events" VALUES(8,'2026-11-26 00:44:01.558840','ada','token create',NULL,NULL,'{"token": 1, "name": "ci", "grants": {"team": "write"}}');
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
INSERT INTO "files" VALUES(1,'adapter_config.json','22f8866f05b0ca0241cd0be7a26059f9853a25c777d1ff6b5611d3c0ad6f87ed',1112);
INSERT INTO "files" VALUES(1,'adapter_model.safetensors','a711a901dab1a057e17790b8e273222ffdb09cc53685a13132483a66e0a4f700',1858776);
INSERT INTO "files" VALUES(2,'adapter_config.json','22f8866f05b0ca0241cd0be7a26059f9853a25c777d1ff6b5611d3c0ad6f87ed',1112);
INSERT INTO "files" VALUES(2,'adapter_model.safetensors','baf50da5a62f4778249ba62c9d92533aab9cd6692d3438b0ee74510a2c4fded5',1858776);
INSERT INTO "files" VALUES(3,'adapter_config.json','70519f1c4e07ee9d6fa72e59c3431e336c8391730a1d973ce6b6a4e72e173cdb',2827);
INSERT INTO "files" VALUES(3,'adapter_model.safetensors','80006631e69e00691b16919ed291ea1f4060ba61687914ddd33dc1810972d1f2',3702168);
INSERT INTO "files" VALUES(3,'loreg_merge.json','64e3acb1c5a00130929e701bc455ce5c2cd9ab562579859849747057e70d5e0c',26792);
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
INSERT INTO "jobs" VALUES(1,'rerank','{"source": "team/science:v1", "rank": 4, "name": "team/small"}','team','ci','{"team": "write"}','done',1,'w:1','',0,0,'{"version": "team/small:v1"}','{}','2026-11-26 00:44:01.612764','2026-11-26 00:44:01.649528','2026-11-26 00:44:01.649528',NULL,0,'',1,NULL,0,0,NULL);
INSERT INTO "jobs" VALUES(2,'merge','{"sources": ["team/science:v1", "team/history:v1"], "name": "team/both"}','team','ci','{"team": "write"}','queued',0,'','',0,0,'{}','{}','2026-11-26 00:44:01.612764',NULL,NULL,1,0,'',1,NULL,0,0,'2026-11-26 00:44:01.612764');
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
INSERT INTO "lineage" VALUES(3,0,'74824d86c206d78e5315e551af4b2b910028a5eea66dbe0c8677cba115b67ba4','team/science:v1',0.5);
INSERT INTO "lineage" VALUES(3,1,'16824e9c5137fad0883ee4917dd4c04968dd53e65b0f2442073d888b2723fe7d','team/history:v1',0.5);
CREATE TABLE merges (
	version_id INTEGER NOT NULL, 
	recipe JSON NOT NULL, 
	certificate JSON NOT NULL, 
	CONSTRAINT pk_merges PRIMARY KEY (version_id), 
	CONSTRAINT fk_merges_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
INSERT INTO "merges" VALUES(3,'{"schema": "loreg.recipe/2", "method": "linear", "parameters": {}, "sources": [{"label": "team/science:v1", "digest": "74824d86c206d78e5315e551af4b2b910028a5eea66dbe0c8677cba115b67ba4", "weight": 0.5}, {"label": "team/history:v1", "digest": "16824e9c5137fad0883ee4917dd4c04968dd53e65b0f2442073d888b2723fe7d", "weight": 0.5}], "weights_for": {}, "lambda": 1.0, "rank": {}, "extras": null, "initials": [], "calibration": ""}','{"schema": "loreg.certificate/2", "total": {"module": "", "shape": [], "rank_in": 16, "rank": 16, "norm": 4.165532563586208, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.5678910640769316e-08, "retention": [1.0, 0.9999999999999993], "ranks": {"90": 6, "99": 10, "99.9": 13}, "complete": true}, "modules": [{"module": "model.layers.0.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.6398002435625232, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.5411807833281825e-08, "retention": [0.9999999999999996, 1.0], "ranks": {"90": 4, "99": 8, "99.9": 11}, "complete": true}, {"module": "model.layers.0.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.39426196223364546, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.58089942321538e-08, "retention": [1.0, 1.0], "ranks": {"90": 2, "99": 6, "99.9": 9}, "complete": true}, {"module": "model.layers.1.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.5306557495069845, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.5786317221990175e-08, "retention": [1.0, 1.0], "ranks": {"90": 6, "99": 9, "99.9": 12}, "complete": true}, {"module": "model.layers.1.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.3709708505248937, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.814950327029963e-08, "retention": [1.0, 1.0], "ranks": {"90": 2, "99": 6, "99.9": 9}, "complete": true}, {"module": "model.layers.10.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.5548682528373432, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.5790059015432736e-08, "retention": [0.9999999999999989, 0.9999999999999992], "ranks": {"90": 4, "99": 9, "99.9": 11}, "complete": true}, {"module": "model.layers.10.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.31366868494559474, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.391615797639895e-08, "retention": [1.0, 1.0], "ranks": {"90": 3, "99": 7, "99.9": 10}, "complete": true}, {"module": "model.layers.11.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.49592766964845597, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.579189414026361e-08, "retention": [1.0, 1.0], "ranks": {"90": 4, "99": 8, "99.9": 10}, "complete": true}, {"module": "model.layers.11.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.3197620431737301, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.6088272560560375e-08, "retention": [1.0, 1.0], "ranks": {"90": 4, "99": 9, "99.9": 10}, "complete": true}, {"module": "model.layers.12.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.6369407280658996, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.6691588169152066e-08, "retention": [0.9999999999999998, 0.9999999999999996], "ranks": {"90": 2, "99": 6, "99.9": 10}, "complete": true}, {"module": "model.layers.12.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.33540058770630976, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.538551944431335e-08, "retention": [1.0, 1.0], "ranks": {"90": 3, "99": 8, "99.9": 10}, "complete": true}, {"module": "model.layers.13.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.5354022389350991, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.567580384694844e-08, "retention": [0.9999999999999997, 1.0], "ranks": {"90": 3, "99": 8, "99.9": 10}, "complete": true}, {"module": "model.layers.13.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.38885684144752686, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.494542047872628e-08, "retention": [0.9999999999999993, 0.9999999999999996], "ranks": {"90": 2, "99": 6, "99.9": 9}, "complete": true}, {"module": "model.layers.14.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.6478965149275745, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.5617085337990046e-08, "retention": [1.0, 1.0], "ranks": {"90": 1, "99": 7, "99.9": 9}, "complete": true}, {"module": "model.layers.14.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.377942501845751, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.579670767903471e-08, "retention": [0.9999999999999986, 0.9999999999999987], "ranks": {"90": 2, "99": 7, "99.9": 10}, "complete": true}, {"module": "model.layers.15.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.5740541861552209, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.517555758428392e-08, "retention": [1.0, 0.9999999999999997], "ranks": {"90": 4, "99": 7, "99.9": 10}, "complete": true}, {"module": "model.layers.15.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.3755510211926177, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.710058872520528e-08, "retention": [0.9999999999999996, 0.9999999999999998], "ranks": {"90": 3, "99": 7, "99.9": 11}, "complete": true}, {"module": "model.layers.16.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.5777259298791616, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.533077759568884e-08, "retention": [1.0, 1.0], "ranks": {"90": 3, "99": 8, "99.9": 11}, "complete": true}, {"module": "model.layers.16.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.40294287436855747, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.674468189720884e-08, "retention": [1.0, 1.0], "ranks": {"90": 3, "99": 7, "99.9": 10}, "complete": true}, {"module": "model.layers.17.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.5569187138260604, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.580497118040134e-08, "retention": [1.0, 1.0], "ranks": {"90": 4, "99": 8, "99.9": 10}, "complete": true}, {"module": "model.layers.17.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.4584709804998605, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.457066731318801e-08, "retention": [0.9999999999999996, 1.0], "ranks": {"90": 2, "99": 6, "99.9": 10}, "complete": true}, {"module": "model.layers.18.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.642768275001487, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.551608993872155e-08, "retention": [0.9999999999999991, 0.9999999999999997], "ranks": {"90": 4, "99": 8, "99.9": 11}, "complete": true}, {"module": "model.layers.18.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.4177870147214896, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.5822302434441655e-08, "retention": [1.0, 1.0], "ranks": {"90": 2, "99": 7, "99.9": 10}, "complete": true}, {"module": "model.layers.19.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.6292146442411053, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.52871010126626e-08, "retention": [1.0, 1.0], "ranks": {"90": 4, "99": 8, "99.9": 12}, "complete": true}, {"module": "model.layers.19.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.3983212791868068, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.348752542129322e-08, "retention": [1.0, 1.0], "ranks": {"90": 3, "99": 7, "99.9": 10}, "complete": true}, {"module": "model.layers.2.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.5512167642316727, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.5396888397875946e-08, "retention": [1.0, 0.9999999999999997], "ranks": {"90": 5, "99": 9, "99.9": 12}, "complete": true}, {"module": "model.layers.2.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.3598104770371247, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.584360001137175e-08, "retention": [0.9999999999999989, 0.9999999999999991], "ranks": {"90": 3, "99": 6, "99.9": 11}, "complete": true}, {"module": "model.layers.20.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.7253239373280852, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.626052651501329e-08, "retention": [0.9999999999999993, 0.9999999999999997], "ranks": {"90": 3, "99": 7, "99.9": 10}, "complete": true}, {"module": "model.layers.20.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.45622024398951466, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.601812654671025e-08, "retention": [1.0, 0.9999999999999994], "ranks": {"90": 3, "99": 8, "99.9": 10}, "complete": true}, {"module": "model.layers.21.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.746817870846291, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.542930217009374e-08, "retention": [0.9999999999999991, 0.9999999999999992], "ranks": {"90": 4, "99": 9, "99.9": 11}, "complete": true}, {"module": "model.layers.21.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.6006854808653487, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.3587116950451996e-08, "retention": [1.0, 1.0], "ranks": {"90": 1, "99": 4, "99.9": 8}, "complete": true}, {"module": "model.layers.22.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.6141027542140343, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.616461874175482e-08, "retention": [1.0, 1.0], "ranks": {"90": 5, "99": 10, "99.9": 13}, "complete": true}, {"module": "model.layers.22.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.526458775930425, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.4926830603703104e-08, "retention": [0.9999999999999999, 0.9999999999999999], "ranks": {"90": 2, "99": 6, "99.9": 10}, "complete": true}, {"module": "model.layers.23.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.6848484206967785, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.543093298053933e-08, "retention": [0.9999999999999996, 0.9999999999999993], "ranks": {"90": 5, "99": 10, "99.9": 13}, "complete": true}, {"module": "model.layers.23.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.4515255365234236, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.610630606382721e-08, "retention": [1.0, 1.0], "ranks": {"90": 3, "99": 9, "99.9": 11}, "complete": true}, {"module": "model.layers.24.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.6347013374750882, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.582070809839501e-08, "retention": [1.0, 0.9999999999999997], "ranks": {"90": 5, "99": 10, "99.9": 13}, "complete": true}, {"module": "model.layers.24.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.5823657816534703, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.6716454849624e-08, "retention": [0.9999999999999999, 0.9999999999999997], "ranks": {"90": 1, "99": 5, "99.9": 8}, "complete": true}, {"module": "model.layers.25.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.6807840783483434, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.510309306979195e-08, "retention": [1.0, 0.9999999999999992], "ranks": {"90": 4, "99": 9, "99.9": 11}, "complete": true}, {"module": "model.layers.25.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.49504451494351737, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.6850578389323595e-08, "retention": [1.0, 0.9999999999999993], "ranks": {"90": 3, "99": 8, "99.9": 11}, "complete": true}, {"module": "model.layers.26.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.7746115088314405, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.5003696560756784e-08, "retention": [0.9999999999999998, 0.9999999999999997], "ranks": {"90": 4, "99": 8, "99.9": 12}, "complete": true}, {"module": "model.layers.26.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.5160530164677833, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.4879879275129447e-08, "retention": [1.0, 1.0], "ranks": {"90": 2, "99": 7, "99.9": 10}, "complete": true}, {"module": "model.layers.27.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.812770324916582, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.6648739791311857e-08, "retention": [0.9999999999999989, 0.9999999999999998], "ranks": {"90": 3, "99": 8, "99.9": 10}, "complete": true}, {"module": "model.layers.27.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.5651047402227424, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.5187997468800694e-08, "retention": [0.9999999999999988, 0.9999999999999987], "ranks": {"90": 2, "99": 6, "99.9": 9}, "complete": true}, {"module": "model.layers.28.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.7068494836927995, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.505454365478059e-08, "retention": [1.0, 1.0], "ranks": {"90": 4, "99": 8, "99.9": 12}, "complete": true}, {"module": "model.layers.28.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.4669431407612016, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.5040609431949706e-08, "retention": [0.9999999999999991, 1.0], "ranks": {"90": 2, "99": 7, "99.9": 10}, "complete": true}, {"module": "model.layers.29.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.7624772565758987, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.684796544580081e-08, "retention": [0.9999999999999988, 0.9999999999999988], "ranks": {"90": 4, "99": 9, "99.9": 11}, "complete": true}, {"module": "model.layers.29.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.5014545462700026, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.5923044256824834e-08, "retention": [1.0, 1.0], "ranks": {"90": 3, "99": 8, "99.9": 11}, "complete": true}, {"module": "model.layers.3.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.5521454771024593, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.517647050438101e-08, "retention": [0.9999999999999999, 1.0], "ranks": {"90": 5, "99": 9, "99.9": 12}, "complete": true}, {"module": "model.layers.3.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.3902467673701481, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.538200321763792e-08, "retention": [0.9999999999999999, 1.0], "ranks": {"90": 2, "99": 5, "99.9": 9}, "complete": true}, {"module": "model.layers.4.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.6749910453878192, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.559761918529758e-08, "retention": [1.0, 0.9999999999999998], "ranks": {"90": 4, "99": 8, "99.9": 10}, "complete": true}, {"module": "model.layers.4.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.3829267556299505, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.7592468054608294e-08, "retention": [1.0, 1.0], "ranks": {"90": 2, "99": 5, "99.9": 10}, "complete": true}, {"module": "model.layers.5.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.583584174530992, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.552121976404806e-08, "retention": [1.0, 1.0], "ranks": {"90": 4, "99": 9, "99.9": 11}, "complete": true}, {"module": "model.layers.5.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.3093829910645662, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.7186476803970175e-08, "retention": [0.9999999999999994, 0.9999999999999993], "ranks": {"90": 2, "99": 6, "99.9": 9}, "complete": true}, {"module": "model.layers.6.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.5177650684347848, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.4955878516755484e-08, "retention": [0.9999999999999992, 0.9999999999999991], "ranks": {"90": 5, "99": 9, "99.9": 12}, "complete": true}, {"module": "model.layers.6.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.39866525861383695, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.480131125561644e-08, "retention": [0.9999999999999987, 0.9999999999999984], "ranks": {"90": 2, "99": 4, "99.9": 8}, "complete": true}, {"module": "model.layers.7.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.6897465865047752, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.6789609070087634e-08, "retention": [0.9999999999999993, 0.9999999999999999], "ranks": {"90": 4, "99": 8, "99.9": 11}, "complete": true}, {"module": "model.layers.7.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.3244663179890352, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.501086475204307e-08, "retention": [1.0, 0.9999999999999999], "ranks": {"90": 3, "99": 6, "99.9": 10}, "complete": true}, {"module": "model.layers.8.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.5094811573292903, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.6412991962503235e-08, "retention": [0.9999999999999998, 1.0], "ranks": {"90": 5, "99": 9, "99.9": 11}, "complete": true}, {"module": "model.layers.8.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.34228331363615, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.397459588942985e-08, "retention": [0.9999999999999992, 0.9999999999999998], "ranks": {"90": 2, "99": 7, "99.9": 9}, "complete": true}, {"module": "model.layers.9.self_attn.q_proj", "shape": [576, 576], "rank_in": 16, "rank": 16, "norm": 0.47137858942563565, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.510486789314872e-08, "retention": [0.9999999999999991, 0.9999999999999994], "ranks": {"90": 6, "99": 9, "99.9": 12}, "complete": true}, {"module": "model.layers.9.self_attn.v_proj", "shape": [192, 576], "rank_in": 16, "rank": 16, "norm": 0.3193340324953963, "epsilon": 0.0, "retained_energy": 1.0, "sigma_next": 0.0, "dtype_error": 3.520944489531394e-08, "retention": [1.0, 1.0], "ranks": {"90": 3, "99": 8, "99.9": 10}, "complete": true}], "warnings": []}');
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
INSERT INTO "metrics" VALUES(1,'accuracy','sciq','',0.9,1,'ada','2026-11-24 03:26:33.285531',0.9);
CREATE TABLE module_types (
	version_id INTEGER NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	count INTEGER NOT NULL, 
	rank_min INTEGER NOT NULL, 
	rank_max INTEGER NOT NULL, 
	CONSTRAINT pk_module_types PRIMARY KEY (version_id, name), 
	CONSTRAINT fk_module_types_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
INSERT INTO "module_types" VALUES(1,'q_proj',30,8,8);
INSERT INTO "module_types" VALUES(1,'v_proj',30,8,8);
INSERT INTO "module_types" VALUES(2,'q_proj',30,8,8);
INSERT INTO "module_types" VALUES(2,'v_proj',30,8,8);
INSERT INTO "module_types" VALUES(3,'q_proj',30,16,16);
INSERT INTO "module_types" VALUES(3,'v_proj',30,16,16);
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
INSERT INTO "registry" VALUES('6765bb35e97e46188c6348204b8343fa','');
CREATE TABLE tasks (
	version_id INTEGER NOT NULL, 
	task VARCHAR(128) NOT NULL, base VARCHAR(1024) DEFAULT '' NOT NULL, 
	CONSTRAINT pk_tasks PRIMARY KEY (version_id, task), 
	CONSTRAINT fk_tasks_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
INSERT INTO "tasks" VALUES(1,'qa','58c97fb27c9f0e85cd6d79036fc9d5a1ccefd27f63dc581be17b52103d3076fb');
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
INSERT INTO "tokens" VALUES(1,'efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef','ci','{"team": "write"}','ada','2026-11-26 00:44:01.558840',NULL,NULL,NULL);
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
INSERT INTO "uploads" VALUES('u1','ci','3434343434343434343434343434343434343434343434343434343434343434',7,0,'2026-11-26 00:44:01.612764');
INSERT INTO "uploads" VALUES('u2','ci','3434343434343434343434343434343434343434343434343434343434343434',7,0,'2026-11-26 00:44:01.612764');
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
INSERT INTO "versions" VALUES(1,1,1,'74824d86c206d78e5315e551af4b2b910028a5eea66dbe0c8677cba115b67ba4',1,'HuggingFaceTB/SmolLM2-135M-Instruct','lora','CAUSAL_LM',8,8,16.0,460800,1859888,'F32','ada','','','2026-11-24 03:26:33.285531',NULL,NULL);
INSERT INTO "versions" VALUES(2,2,1,'16824e9c5137fad0883ee4917dd4c04968dd53e65b0f2442073d888b2723fe7d',NULL,'HuggingFaceTB/SmolLM2-135M-Instruct','lora','CAUSAL_LM',8,8,16.0,460800,1859888,'F32','ada','','','2026-11-24 03:26:33.331220',NULL,NULL);
INSERT INTO "versions" VALUES(3,3,1,'9c9a97cfae2cca70d0f2e4c676a0da25498dafd833721a853698971ebf597bb9',1,'HuggingFaceTB/SmolLM2-135M-Instruct','lora','CAUSAL_LM',16,16,16.0,921600,3731787,'F32','ada','','','2026-11-24 03:26:33.558472',NULL,NULL);
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
