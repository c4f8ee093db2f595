-- What `commit_v1` does, for few operations on records and on nothing else: what a transaction of the
-- user's ends with. One by one, without sets to be made up, they take half as long.
--
-- The same locks (too few to take the partition whole), arguments and verdicts. The batches come in an order in which they may be judged.
CREATE FUNCTION evenkeel.commit_records_v1(
    of_part text, of_store uuid, part_lock integer, locks integer[],
    b_id uuid[], b_now bigint[],
    r_batch integer[], r_op integer[], r_does text[], r_space text[], r_grp text[], r_id text[],
    r_expect text[], r_version uuid[], r_value bytea[], r_expires_at bigint[]
) RETURNS TABLE (
    round integer, batch integer, op integer, verdict text,
    value bytea, version uuid, expires_at bigint
) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    first integer := 1;
    nth integer;
    stood record;
    is_live boolean;
    holds boolean;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'a stricter isolation than READ COMMITTED judges a stale snapshot' USING ERRCODE = 'EK001';
    END IF;
    IF of_store <> (SELECT s.id FROM evenkeel.store s WHERE s.one) THEN
        RAISE EXCEPTION 'this is another store' USING ERRCODE = 'EK002';
    END IF;

    PERFORM pg_advisory_xact_lock_shared(1702259537, part_lock);
    FOR nth IN 1 .. cardinality(locks) LOOP
        PERFORM pg_advisory_xact_lock(1702259538, locks[nth]);
    END LOOP;

    round := 1;
    WHILE first <= cardinality(r_batch) LOOP
        batch := r_batch[first];
        verdict := 'holds';

        nth := first;
        WHILE r_batch[nth] = batch LOOP
            SELECT r.value, r.version, r.expires_at INTO stood FROM evenkeel.record r
            WHERE r.part = of_part AND r.space = r_space[nth] AND r.grp = r_grp[nth] AND r.id = r_id[nth];
            IF r_does[nth] = 'put' AND stood.version = b_id[batch] THEN
                verdict := 'applied';
                op := r_op[nth];
                EXIT;
            END IF;
            is_live := stood.version IS NOT NULL AND coalesce(stood.expires_at > b_now[batch], true);
            holds := CASE r_expect[nth]
                WHEN 'any' THEN true
                WHEN 'absent' THEN NOT is_live
                WHEN 'present' THEN is_live
                ELSE is_live AND stood.version = r_version[nth]
            END;
            IF verdict = 'holds' AND NOT holds THEN
                verdict := 'fails';
                op := r_op[nth];
                IF is_live THEN
                    value := stood.value; version := stood.version; expires_at := stood.expires_at;
                END IF;
            END IF;
            nth := nth + 1;
        END LOOP;

        IF verdict <> 'holds' THEN
            RETURN NEXT;
            value := NULL; version := NULL; expires_at := NULL;
        END IF;

        WHILE r_batch[first] = batch LOOP
            IF verdict <> 'holds' THEN
                NULL;
            ELSIF r_does[first] = 'put' THEN
                INSERT INTO evenkeel.record AS r (part, space, grp, id, value, version, expires_at)
                VALUES (of_part, r_space[first], r_grp[first], r_id[first], r_value[first], b_id[batch],
                    r_expires_at[first])
                ON CONFLICT (part, space, grp, id) DO UPDATE
                SET value = excluded.value, version = excluded.version, expires_at = excluded.expires_at;
            ELSIF r_does[first] = 'delete' THEN
                DELETE FROM evenkeel.record r
                WHERE r.part = of_part AND r.space = r_space[first] AND r.grp = r_grp[first] AND r.id = r_id[first];
            END IF;
            first := first + 1;
        END LOOP;
    END LOOP;
END
$$;
