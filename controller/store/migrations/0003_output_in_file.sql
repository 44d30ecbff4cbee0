-- Whether a row's bytes are in the run's file beside the database instead of its content.
ALTER TABLE run_output ADD COLUMN in_file BIGINT NOT NULL DEFAULT 0;
