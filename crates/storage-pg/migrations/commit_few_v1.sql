-- What `commit_v1` does, for few operations on records and jobs that are pushed leased: what somebody
-- alone commits. One by one, without sets to be made up, they take half as long.
--
-- A job stands among the records: its queue as the group, its token as the version, its payload as the
-- value, and the end of its lease as that of the record.
--
-- The same locks (too few to take the partition whole), arguments and verdicts. The batches come in an
-- order in which they may be judged. Since nobody else writes what is locked, a batch is not judged
-- before it is written: each operation is written if its expectation holds, and where one does not,
-- what those before it wrote is undone. A batch that fails at its first operation writes nothing.
CREATE FUNCTION evenkeel.commit_few_v1(
    of_part text, of_store uuid, synced boolean, part_lock integer, locks integer[],
    b_id uuid[], b_now bigint[],
    r_batch integer[], r_op integer[], r_does text[], r_space text[], r_grp text[], r_id text[],
    r_expect text[], r_version uuid[], r_value bytea[], r_expires_at bigint[], r_due bigint[]
) RETURNS TABLE (
    round integer, batch integer, op integer, verdict text,
    value bytea, version uuid, expires_at bigint,
    due bigint, attempt integer, leased_until bigint,
    pending_due bigint, pending_payload bytea, pending_sooner bigint
) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    first integer;
    nth integer := 1;
    id_of_batch uuid;
    now_of_batch bigint;
    holds boolean;
BEGIN
    PERFORM evenkeel.enter_v1(of_store, synced, false, part_lock, locks);

    round := 1;
    WHILE nth <= cardinality(r_batch) LOOP
        first := nth;
        batch := r_batch[first];
        id_of_batch := b_id[batch];
        now_of_batch := b_now[batch];
        BEGIN
            WHILE r_batch[nth] = batch LOOP
                IF r_does[nth] = 'lease' THEN
                    INSERT INTO evenkeel.job (part, queue, id, due, payload, attempt, token, leased_until)
                    VALUES (of_part, r_grp[nth], r_id[nth], r_due[nth], r_value[nth], 1, r_version[nth],
                        r_expires_at[nth])
                    ON CONFLICT (part, queue, id) DO NOTHING;
                    holds := FOUND;
                ELSIF r_does[nth] = 'put' AND r_expect[nth] IN ('present', 'version') THEN
                    UPDATE evenkeel.record r
                    SET value = r_value[nth], version = id_of_batch, expires_at = r_expires_at[nth]
                    WHERE r.part = of_part AND r.space = r_space[nth] AND r.grp = r_grp[nth] AND r.id = r_id[nth]
                      AND r.version <> id_of_batch AND coalesce(r.version = r_version[nth], true)
                      AND coalesce(r.expires_at > now_of_batch, true);
                    holds := FOUND;
                ELSE
                    holds := true;
                    IF r_expect[nth] <> 'any' THEN
                        PERFORM FROM evenkeel.record r
                        WHERE r.part = of_part AND r.space = r_space[nth] AND r.grp = r_grp[nth] AND r.id = r_id[nth]
                          AND coalesce(r.version = r_version[nth], true)
                          AND coalesce(r.expires_at > now_of_batch, true);
                        holds := FOUND = (r_expect[nth] <> 'absent');
                    END IF;
                    IF holds AND r_does[nth] = 'put' THEN
                        INSERT INTO evenkeel.record AS r (part, space, grp, id, value, version, expires_at)
                        VALUES (of_part, r_space[nth], r_grp[nth], r_id[nth], r_value[nth], id_of_batch,
                            r_expires_at[nth])
                        ON CONFLICT (part, space, grp, id) DO UPDATE
                        SET value = excluded.value, version = excluded.version, expires_at = excluded.expires_at
                        WHERE r.version <> excluded.version;
                        holds := FOUND;
                    ELSIF holds AND r_does[nth] = 'delete' THEN
                        DELETE FROM evenkeel.record r
                        WHERE r.part = of_part AND r.space = r_space[nth] AND r.grp = r_grp[nth] AND r.id = r_id[nth];
                    END IF;
                END IF;
                IF NOT holds THEN
                    RAISE EXCEPTION 'an expectation does not hold' USING ERRCODE = 'EK003';
                END IF;
                nth := nth + 1;
            END LOOP;
        EXCEPTION WHEN SQLSTATE 'EK003' THEN
            verdict := 'fails';
            op := r_op[nth];
            IF r_does[nth] = 'lease' THEN
                SELECT j.payload, j.token, NULL, j.due, j.attempt, j.leased_until,
                    j.pending_due, j.pending_payload, j.pending_sooner
                INTO value, version, expires_at, due, attempt, leased_until,
                    pending_due, pending_payload, pending_sooner
                FROM evenkeel.job j
                WHERE j.part = of_part AND j.queue = r_grp[nth] AND j.id = r_id[nth];
            ELSE
                SELECT r.value, r.version, r.expires_at INTO value, version, expires_at FROM evenkeel.record r
                WHERE r.part = of_part AND r.space = r_space[nth] AND r.grp = r_grp[nth] AND r.id = r_id[nth]
                  AND coalesce(r.expires_at > now_of_batch, true);
            END IF;
            nth := first;
            WHILE r_batch[nth] = batch LOOP
                IF r_does[nth] = 'lease' THEN
                    PERFORM FROM evenkeel.job j
                    WHERE j.part = of_part AND j.queue = r_grp[nth] AND j.id = r_id[nth]
                      AND j.token = r_version[nth];
                ELSE
                    PERFORM FROM evenkeel.record r
                    WHERE r.part = of_part AND r.space = r_space[nth] AND r.grp = r_grp[nth] AND r.id = r_id[nth]
                      AND r.version = id_of_batch AND r_does[nth] = 'put';
                END IF;
                IF FOUND THEN
                    verdict := 'applied';
                END IF;
                nth := nth + 1;
            END LOOP;
            RETURN NEXT;
        END;
    END LOOP;
END
$$;
