-- How much a run wrote, without the headers of the record log that output_end counts.
ALTER TABLE run ADD COLUMN output_bytes BIGINT NOT NULL DEFAULT 0;

-- Of older runs only the length of the log is known: at most 13 bytes too much for each piece they wrote.
UPDATE run SET output_bytes = output_end;
