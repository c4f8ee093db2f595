-- Removes records that expired before an instant, and the contents of trimmed events; at most
-- `most` of both, and says how many. Passes over what a commit is about to change, and so waits for
-- nobody.
CREATE FUNCTION evenkeel.sweep_v1(of_part text, expired_before bigint, most bigint)
RETURNS bigint LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    done bigint := 0;
    changed bigint;
    trimmed_stream text;
    from_version bigint;
    through bigint;
BEGIN
    DELETE FROM evenkeel.record WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM evenkeel.record r WHERE r.part = of_part AND r.expires_at < expired_before
        ORDER BY r.expires_at LIMIT most FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS done = ROW_COUNT;

    WHILE done < most LOOP
        SELECT s.stream, s.swept, s.swept + least(s.trimmed - s.swept, most - done)
        INTO trimmed_stream, from_version, through
        FROM evenkeel.stream s WHERE s.part = of_part AND s.swept < s.trimmed
        LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;

        UPDATE evenkeel.event e SET payload = NULL, metadata = NULL
        WHERE e.part || '/' || e.stream = of_part || '/' || trimmed_stream
          AND e.version > from_version AND e.version <= through;
        GET DIAGNOSTICS changed = ROW_COUNT;
        done := done + changed;
        UPDATE evenkeel.stream s SET swept = through WHERE s.part = of_part AND s.stream = trimmed_stream;
    END LOOP;
    RETURN done;
END
$$;
