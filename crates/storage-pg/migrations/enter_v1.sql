-- Makes sure that a commit is judged where and as it should be, and takes its locks in their order:
-- the partition (shared, or `whole`), then the records, streams and jobs by hash.
-- Where it is not `synced`, the transaction's commit does not wait for the disk.
CREATE FUNCTION evenkeel.enter_v1(
    of_store uuid, synced boolean, whole boolean, part_lock integer, locks integer[]
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'a stricter isolation than READ COMMITTED judges a stale snapshot' USING ERRCODE = 'EK001';
    END IF;
    IF of_store IS NOT NULL THEN
        IF of_store <> (SELECT s.id FROM evenkeel.store s WHERE s.one) THEN
            RAISE EXCEPTION 'this is another store' USING ERRCODE = 'EK002';
        END IF;
    END IF;
    IF NOT synced THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    IF whole THEN
        PERFORM pg_advisory_xact_lock(1702259537, part_lock);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(1702259537, part_lock);
        PERFORM pg_advisory_xact_lock(1702259538, l) FROM unnest(locks) l;
    END IF;
END
$$;
