-- One text for both engines. In braces: what differs between them (see src/migrate.rs).
--   text  TEXT compared byte by byte      blob  uninterpreted bytes      now  time of this migration
-- Times are milliseconds since the Unix epoch. Flags are 0 or 1. Lists and maps are JSON.
-- Which words a column may hold is known to the types that write it: a list here could not be changed on SQLite without
-- rebuilding the table, and its children with it.

CREATE TABLE tenant (
  id {text} PRIMARY KEY,
  name {text} NOT NULL UNIQUE,
  title {text} NOT NULL,
  next_operation BIGINT NOT NULL DEFAULT 1,
  created_at BIGINT NOT NULL
);

INSERT INTO tenant (id, name, title, created_at)
VALUES ('00000000-0000-7000-8000-000000000001', 'default', 'Default', {now});

CREATE TABLE "user" (
  id {text} PRIMARY KEY,
  name {text} NOT NULL UNIQUE,
  password_hash {text},
  must_change_password BIGINT NOT NULL DEFAULT 0 CHECK (must_change_password IN (0, 1)),
  known_parties {text} NOT NULL DEFAULT '[]',
  disabled_at BIGINT,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);

CREATE TABLE role_grant (
  user_id {text} NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
  tenant_id {text} NOT NULL REFERENCES tenant (id),
  role {text} NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (user_id, tenant_id, role)
);

CREATE TABLE session (
  id {text} PRIMARY KEY,
  user_id {text} NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
  kind {text} NOT NULL,
  secret_digest {text} NOT NULL UNIQUE,
  name {text} NOT NULL,
  created_at BIGINT NOT NULL,
  last_used_at BIGINT NOT NULL,
  expires_at BIGINT
);
CREATE INDEX session_owner ON session (user_id, created_at);
CREATE INDEX session_expiry ON session (expires_at);

CREATE TABLE host (
  id {text} PRIMARY KEY,
  tenant_id {text} NOT NULL REFERENCES tenant (id),
  name {text} NOT NULL,
  client_id {text} NOT NULL,
  type {text} NOT NULL,
  provider {text} NOT NULL DEFAULT '',
  source {text} NOT NULL,
  address {text},
  port BIGINT,
  login_user {text},
  key_ref {text},
  proxy_jump {text},
  metadata {text} NOT NULL DEFAULT '{}',
  tags {text} NOT NULL DEFAULT '[]',
  enrolment_required BIGINT NOT NULL DEFAULT 1 CHECK (enrolment_required IN (0, 1)),
  enrolment {text} NOT NULL,
  lifecycle {text} NOT NULL,
  retired_at BIGINT,
  status {text} NOT NULL DEFAULT 'offline',
  -- How often it has arrived: what is written of a connection counts only as long as that is the last.
  seat BIGINT NOT NULL DEFAULT 0,
  last_seen BIGINT,
  connected_at BIGINT,
  rtt_us BIGINT,
  clock_skew_ms BIGINT,
  agent_version {text},
  boot_id {text},
  journal_id {text},
  kinds {text} NOT NULL DEFAULT '[]',
  facts {text},
  -- Of the facts and the boot they were told in: with the same one they need not be sent again.
  facts_digest {text},
  facts_at BIGINT,
  -- What it needs of those who look after it; told apart from its facts.
  upkeep {text},
  os {text} NOT NULL DEFAULT '',
  os_version {text} NOT NULL DEFAULT '',
  kernel {text} NOT NULL DEFAULT '',
  arch {text} NOT NULL DEFAULT '',
  virtualisation {text} NOT NULL DEFAULT '',
  notices {text} NOT NULL DEFAULT '[]',
  -- Two machines that use the identity: what was last written down of it.
  twins {text},
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  deleted_at BIGINT
);
CREATE UNIQUE INDEX host_name ON host (tenant_id, name) WHERE lifecycle = 'active';
CREATE UNIQUE INDEX host_client ON host (client_id) WHERE lifecycle = 'active';
CREATE INDEX host_names ON host (tenant_id, name);
CREATE INDEX host_clients ON host (client_id);
CREATE INDEX host_seen ON host (tenant_id, last_seen);

-- Target expressions under a name. "group" is a word of SQL.
CREATE TABLE host_group (
  tenant_id {text} NOT NULL REFERENCES tenant (id),
  name {text} NOT NULL,
  expression {text} NOT NULL,
  description {text} NOT NULL,
  updated_by {text} NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, name)
);

CREATE TABLE host_tag (
  host_id {text} NOT NULL REFERENCES host (id) ON DELETE CASCADE,
  tenant_id {text} NOT NULL REFERENCES tenant (id),
  tag {text} NOT NULL,
  PRIMARY KEY (host_id, tag)
);
CREATE INDEX host_tag_tag ON host_tag (tenant_id, tag, host_id);

CREATE TABLE certificate (
  serial {text} PRIMARY KEY,
  tenant_id {text} NOT NULL REFERENCES tenant (id),
  host_id {text} NOT NULL REFERENCES host (id) ON DELETE CASCADE,
  fingerprint {text} NOT NULL UNIQUE,
  not_before BIGINT NOT NULL,
  not_after BIGINT NOT NULL,
  issued_at BIGINT NOT NULL,
  revoked_at BIGINT,
  revoke_reason {text}
);
CREATE INDEX certificate_host ON certificate (host_id, issued_at);

CREATE TABLE token (
  id {text} PRIMARY KEY,
  tenant_id {text} NOT NULL REFERENCES tenant (id),
  host_id {text} REFERENCES host (id) ON DELETE CASCADE,
  secret_digest {text} NOT NULL UNIQUE,
  created_by {text} REFERENCES "user" (id) ON DELETE SET NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  used_at BIGINT,
  used_by_key {text}
);
CREATE INDEX token_host ON token (host_id);

CREATE TABLE repository (
  tenant_id {text} PRIMARY KEY REFERENCES tenant (id),
  url {text} NOT NULL,
  branch {text} NOT NULL,
  credentials {blob},
  interval_ms BIGINT NOT NULL,
  good_url {text},
  good_branch {text},
  good_commit {text},
  good_at BIGINT,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);

CREATE TABLE sync (
  id {text} PRIMARY KEY,
  -- Counts the attempts: which is the last does not depend on clocks.
  number BIGINT NOT NULL,
  tenant_id {text} NOT NULL REFERENCES tenant (id),
  url {text} NOT NULL,
  branch {text} NOT NULL,
  triggered_by {text} NOT NULL,
  status {text} NOT NULL,
  started_at BIGINT NOT NULL,
  ended_at BIGINT,
  commit_id {text},
  failure {text},
  problems {text} NOT NULL DEFAULT '[]',
  hosts BIGINT NOT NULL DEFAULT 0,
  scripts BIGINT NOT NULL DEFAULT 0,
  changes {text} NOT NULL DEFAULT '{}',
  departures {text}
);
CREATE INDEX sync_number ON sync (number, id);
CREATE INDEX sync_of_tenant ON sync (tenant_id, number, id);

CREATE TABLE script_content (
  digest {text} PRIMARY KEY,
  content {blob} NOT NULL,
  size BIGINT NOT NULL,
  created_at BIGINT NOT NULL
);

CREATE TABLE script (
  tenant_id {text} NOT NULL REFERENCES tenant (id),
  name {text} NOT NULL,
  digest {text} NOT NULL REFERENCES script_content (digest),
  display_name {text} NOT NULL,
  description {text} NOT NULL,
  emoji {text} NOT NULL DEFAULT '',
  flags {text} NOT NULL DEFAULT '[]',
  free_arguments {text} NOT NULL DEFAULT 'any',
  environment {text} NOT NULL DEFAULT '[]',
  estimated_ms BIGINT,
  timeout_ms BIGINT,
  run_as {text},
  users {text} NOT NULL DEFAULT '[]',
  resources {text} NOT NULL DEFAULT '[]',
  tags {text} NOT NULL DEFAULT '[]',
  path {text},
  commit_id {text} NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  retired_at BIGINT,
  PRIMARY KEY (tenant_id, name)
);

CREATE TABLE operation (
  id {text} PRIMARY KEY,
  tenant_id {text} NOT NULL REFERENCES tenant (id),
  number BIGINT NOT NULL,
  seq BIGINT NOT NULL DEFAULT 0,
  -- The digest of what was asked: the same request with the same id is the same operation.
  request_digest {text} NOT NULL,
  -- The plan's canonical bytes: what every host of it receives.
  plan {blob} NOT NULL,
  summary {text} NOT NULL,
  targets {text} NOT NULL,
  policy {text} NOT NULL,
  status {text} NOT NULL,
  created_by {text} REFERENCES "user" (id) ON DELETE SET NULL,
  created_by_name {text} NOT NULL,
  created_at BIGINT NOT NULL,
  deadline BIGINT NOT NULL,
  -- How many hosts were left out because they are not enrolled.
  left_out BIGINT NOT NULL DEFAULT 0,
  reason {text},
  started_at BIGINT,
  ended_at BIGINT,
  stop_requested_at BIGINT,
  stop_requested_by {text},
  halted_at BIGINT,
  runs BIGINT NOT NULL DEFAULT 0,
  succeeded BIGINT NOT NULL DEFAULT 0,
  failed BIGINT NOT NULL DEFAULT 0,
  UNIQUE (tenant_id, number)
);
CREATE INDEX operation_created ON operation (tenant_id, created_at, number, id);
CREATE INDEX operation_status ON operation (status);

-- What each host does: as it may be shown, and as it is sent: the canonical bytes, sealed, for they hold what the runs are given.
CREATE TABLE operation_step (
  operation_id {text} NOT NULL REFERENCES operation (id) ON DELETE CASCADE,
  position BIGINT NOT NULL,
  kind {text} NOT NULL,
  subject {text} NOT NULL,
  digest {text} NOT NULL,
  params {text} NOT NULL,
  sealed {blob} NOT NULL,
  PRIMARY KEY (operation_id, position)
);

CREATE TABLE run (
  id {text} PRIMARY KEY,
  tenant_id {text} NOT NULL REFERENCES tenant (id),
  operation_id {text} NOT NULL REFERENCES operation (id) ON DELETE CASCADE,
  host_id {text} NOT NULL REFERENCES host (id),
  host_name {text} NOT NULL,
  client_id {text} NOT NULL,
  position BIGINT NOT NULL,
  step BIGINT NOT NULL,
  -- Why the plan means this host.
  proof {blob} NOT NULL,
  state {text} NOT NULL,
  detail {text} NOT NULL,
  exit_code BIGINT,
  queued_at BIGINT NOT NULL,
  dispatched_at BIGINT,
  accepted_at BIGINT,
  started_at BIGINT,
  ended_at BIGINT,
  duration_ms BIGINT,
  left_running {text},
  attached BIGINT NOT NULL DEFAULT 0,
  output_end BIGINT NOT NULL DEFAULT 0,
  output_tail BIGINT NOT NULL DEFAULT 0,
  output_lost BIGINT NOT NULL DEFAULT 0,
  -- How much a run wrote, without the headers of the record log that output_end counts.
  output_bytes BIGINT NOT NULL DEFAULT 0,
  seq BIGINT NOT NULL,
  UNIQUE (operation_id, position, step)
);
CREATE INDEX run_seq ON run (operation_id, seq);
CREATE INDEX run_state ON run (operation_id, state);
CREATE INDEX run_host ON run (host_id, state);

CREATE TABLE run_report (
  run_id {text} PRIMARY KEY REFERENCES run (id) ON DELETE CASCADE,
  report {text} NOT NULL
);

CREATE TABLE run_output (
  run_id {text} NOT NULL REFERENCES run (id) ON DELETE CASCADE,
  first_offset BIGINT NOT NULL,
  end_offset BIGINT NOT NULL,
  tenant_id {text} NOT NULL REFERENCES tenant (id),
  operation_id {text} NOT NULL REFERENCES operation (id) ON DELETE CASCADE,
  first_seq BIGINT NOT NULL,
  seq BIGINT NOT NULL,
  marks {blob} NOT NULL,
  content {blob} NOT NULL,
  -- Whether a row's bytes are in the run's file beside the database instead of its content.
  in_file BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (run_id, first_offset)
);
CREATE INDEX run_output_seq ON run_output (operation_id, seq, first_seq);

CREATE TABLE audit (
  number BIGINT PRIMARY KEY,
  id {text} NOT NULL UNIQUE,
  tenant_id {text},
  at BIGINT NOT NULL,
  kind {text} NOT NULL,
  actor {text} NOT NULL,
  subject {text} NOT NULL,
  details {text} NOT NULL,
  previous {text} NOT NULL,
  hash {text} NOT NULL
);
CREATE INDEX audit_tenant ON audit (tenant_id, number);
CREATE INDEX audit_kind ON audit (kind, number);

CREATE TABLE audit_head (
  singleton BIGINT PRIMARY KEY CHECK (singleton = 1),
  number BIGINT NOT NULL,
  hash {text} NOT NULL,
  -- About how many bytes the events take.
  size BIGINT NOT NULL DEFAULT 0,
  -- The last event that was removed for its age or for room; what follows it is still a chain.
  checkpoint_number BIGINT NOT NULL DEFAULT 0,
  checkpoint_hash {text} NOT NULL
);
INSERT INTO audit_head (singleton, number, hash, checkpoint_hash)
VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000',
  '0000000000000000000000000000000000000000000000000000000000000000');

CREATE TABLE idempotency (
  user_id {text} NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
  idempotency_key {text} NOT NULL,
  request_digest {text} NOT NULL,
  status BIGINT,
  response {text},
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (user_id, idempotency_key)
);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);
