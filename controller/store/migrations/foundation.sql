-- What stands before the first step. Builds of any age read these tables, so their shape is never changed.

CREATE TABLE schema_step (
  number BIGINT PRIMARY KEY,
  name {text} NOT NULL,
  digest {text} NOT NULL,
  applied_at BIGINT NOT NULL
);

-- The controllers that work on this database, each with a counter that tells that it is alive. `alive` is 1 or nothing: one at
-- a time is.
CREATE TABLE controller (
  id {text} PRIMARY KEY,
  name {text} NOT NULL,
  version {text} NOT NULL,
  beat BIGINT NOT NULL,
  alive BIGINT UNIQUE,
  started_at BIGINT NOT NULL
);

-- Single values, such as which keys the database belongs with: read before a step is taken.
CREATE TABLE setting (
  name {text} PRIMARY KEY,
  value {text} NOT NULL,
  updated_at BIGINT NOT NULL
);
