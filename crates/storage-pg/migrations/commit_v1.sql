-- Commits batches of one partition that waited at the same moment: judges each in order against the
-- state that those before it leave, writes the ones whose expectations all hold, and answers with
-- what became of them. One call is one transaction, unless the caller is in one.
--
-- A function and not one statement, because in a VOLATILE function at READ COMMITTED every statement
-- takes a fresh snapshot: what is judged after the locks is what stands there.
--
-- Locks come in one order, so that two calls never wait for each other in a circle: the partition
-- (shared, or exclusively by a call that names too much to lock one by one), then the records,
-- streams and jobs by hash, then rows of jobs, then the head of the log, only if there is anything to
-- append. Leasing and sweeping pass over locked rows instead of waiting.
--
-- The batches come in waves: within one, no two name the same record, stream or job, so that a wave
-- is judged and written as a set. A round judges every wave that is left, and writes the first that
-- has anything to write; those behind it are judged anew in the next round. So it takes one round
-- where no two batches name the same thing, and also where all those who do so fail. Arrays with the
-- same first letter belong together, one place an operation, wave after wave; `_batch` says whose it
-- is and `_op` where in that batch it stands.
--
-- Plans are made once in a session, when the tables may still be empty, and then have to do. So each
-- row is looked for by itself, in a subquery whose LIMIT the planner cannot turn into a join that
-- goes through the whole partition.
--
-- A row of the answer is about one operation. Its verdict is
--   'applied'   something that it names bears the batch's id: the batch was sent again
--   'fails'     its expectation does not hold; the row says what stood there
--   'appended'  its events were written, from `stream_version` and `position` on
--   'holds'     (about the whole batch) what an earlier round said of it is void
-- What a later round says of a batch replaces what earlier rounds said. A batch of which no operation
-- failed or was applied before is committed.
CREATE FUNCTION evenkeel.commit_v1(
    of_part text,
    of_store uuid,       -- which store this must be, where the connection is not the store's own
    synced boolean,      -- whether the commit waits for the disk
    whole boolean, part_lock integer, locks integer[],
    b_id uuid[], b_now bigint[], b_wave integer[],
    -- records: put, delete, check
    r_batch integer[], r_op integer[], r_does text[], r_space text[], r_grp text[], r_id text[],
    r_expect text[], r_version uuid[], r_value bytea[], r_expires_at bigint[],
    -- streams: append, check, trim; `s_first` is the version an append expects for its first event
    s_batch integer[], s_op integer[], s_does text[], s_stream text[],
    s_expect text[], s_first bigint[], s_count bigint[], s_through bigint[],
    -- events; `e_append` is the place in the arrays of streams, `e_nth` counts from 0 in the append
    e_append integer[], e_nth bigint[], e_stream text[], e_id uuid[], e_kind text[],
    e_content_type text[], e_payload bytea[], e_metadata text[],
    -- jobs: ack, retry, extend, cancel, lease, which expects none and is among the pushes too
    j_batch integer[], j_op integer[], j_does text[], j_queue text[], j_id text[],
    j_token uuid[], j_at bigint[],
    -- jobs pushed: keep, sooner, lease (with the token and until when)
    p_batch integer[], p_does text[], p_queue text[], p_id text[], p_due bigint[], p_payload bytea[],
    p_token uuid[], p_until bigint[]
) RETURNS TABLE (
    round integer, batch integer, op integer, verdict text,
    value bytea, version uuid, expires_at bigint,
    stream_version bigint, "position" bigint,
    due bigint, attempt integer, leased_until bigint,
    pending_due bigint, pending_payload bytea, pending_sooner bigint
) LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    wave integer := 0;
    waves integer := coalesce((SELECT max(w) FROM unnest(b_wave) w), 0);
    refused boolean[] := array_fill(false, ARRAY[cardinality(b_id)]);
    was_refused boolean[];
    judged_after integer;
    nth integer;
    -- Whether jobs go, and whether any changes. One that is extended to the end it has only proves its
    -- lease.
    goes boolean;
    jobs_go boolean := false;
    jobs_change boolean := false;
    -- By place in the arrays of streams: how many events the stream had, and how far beyond the end of
    -- the log the first new one goes.
    stream_had bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(s_batch)]);
    goes_to bigint[];
    appending bigint;
    log_ended bigint;
    -- Which events belong to the appends of the wave.
    first_event integer;
    last_event integer;
BEGIN
    PERFORM evenkeel.enter_v1(of_store, synced, whole, part_lock, locks);

    round := 0;
    WHILE wave < waves LOOP
        round := round + 1;
        was_refused := refused;
        refused := array_fill(false, ARRAY[cardinality(b_id)]);

        -- Judge.

        IF cardinality(r_batch) > 0 THEN
            FOR batch, op, verdict, value, version, expires_at IN
                SELECT DISTINCT ON (o.batch) o.batch, o.op,
                    CASE WHEN l.own THEN 'applied' ELSE 'fails' END,
                    CASE WHEN l.live THEN r.value END, CASE WHEN l.live THEN r.version END,
                    CASE WHEN l.live THEN r.expires_at END
                FROM unnest(r_batch, r_op, r_does, r_space, r_grp, r_id, r_expect, r_version)
                    AS o (batch, op, does, space, grp, id, expect, version)
                LEFT JOIN LATERAL (
                    SELECT r.value, r.version, r.expires_at FROM evenkeel.record r
                    WHERE r.part = of_part AND r.space = o.space AND r.grp = o.grp AND r.id = o.id LIMIT 1
                ) r ON true
                CROSS JOIN LATERAL (SELECT
                    o.does = 'put' AND r.version IS NOT DISTINCT FROM b_id[o.batch] AS own,
                    r.version IS NOT NULL AND coalesce(r.expires_at > b_now[o.batch], true) AS live
                ) l
                WHERE b_wave[o.batch] > wave AND (l.own OR NOT CASE o.expect
                    WHEN 'any' THEN true
                    WHEN 'absent' THEN NOT l.live
                    WHEN 'present' THEN l.live
                    ELSE l.live AND r.version = o.version
                END)
                ORDER BY o.batch, l.own DESC, o.op
            LOOP
                refused[batch] := true;
                RETURN NEXT;
            END LOOP;
            value := NULL; version := NULL; expires_at := NULL;
        END IF;

        IF cardinality(s_batch) > 0 THEN
            FOR nth, batch, op, verdict, stream_version, position IN
                SELECT o.nth, o.batch, o.op,
                    CASE WHEN e.batch = b_id[o.batch] THEN 'applied' WHEN NOT l.holds THEN 'fails' END,
                    CASE WHEN e.batch = b_id[o.batch] THEN coalesce(o.first, l.had + 1 - o.count) ELSE l.had END,
                    CASE WHEN o.first IS NULL THEN e.position + 1 - o.count ELSE e.position END
                FROM unnest(s_batch, s_op, s_does, s_stream, s_expect, s_first, s_count)
                    WITH ORDINALITY AS o (batch, op, does, stream, expect, first, count, nth)
                LEFT JOIN LATERAL (
                    SELECT s.version FROM evenkeel.stream s
                    WHERE s.part = of_part AND s.stream = o.stream LIMIT 1
                ) s ON true
                -- The event by which an append recognises itself.
                LEFT JOIN LATERAL (
                    SELECT e.batch, e.position FROM evenkeel.event e
                    WHERE e.part || '/' || e.stream = of_part || '/' || o.stream
                      AND e.version = coalesce(o.first, s.version) AND o.does = 'append' LIMIT 1
                ) e ON true
                CROSS JOIN LATERAL (SELECT coalesce(s.version, 0) AS had) h
                CROSS JOIN LATERAL (SELECT h.had, CASE o.expect
                    WHEN 'any' THEN true
                    WHEN 'none' THEN h.had = 0
                    WHEN 'exists' THEN h.had > 0
                    ELSE h.had = o.first - 1
                END AS holds) l
                WHERE b_wave[o.batch] > wave AND o.does <> 'trim'
                ORDER BY o.nth
            LOOP
                IF verdict IS NULL THEN
                    stream_had[nth] := stream_version;
                ELSE
                    refused[batch] := true;
                    RETURN NEXT;
                END IF;
            END LOOP;
            stream_version := NULL; position := NULL;
        END IF;

        IF cardinality(j_batch) > 0 THEN
            jobs_go := false;
            jobs_change := false;
            FOR batch, op, verdict, goes, value, version, due, attempt, leased_until,
                pending_due, pending_payload, pending_sooner IN
                -- An acknowledged job stays where one was pushed meanwhile.
                SELECT o.batch, o.op, l.verdict,
                    o.does = 'cancel' OR o.does = 'ack' AND j.pending_due IS NULL, j.payload, j.token, j.due, j.attempt,
                    j.leased_until, j.pending_due, j.pending_payload, j.pending_sooner
                FROM unnest(j_batch, j_op, j_does, j_queue, j_id, j_token, j_at)
                    AS o (batch, op, does, queue, id, token, at)
                -- Once locked it stays where it is found: leasing passes it over.
                LEFT JOIN LATERAL (
                    SELECT j.* FROM evenkeel.job j
                    WHERE j.part = of_part AND j.queue = o.queue AND j.id = o.id LIMIT 1 FOR UPDATE
                ) j ON true
                CROSS JOIN LATERAL (SELECT CASE
                    WHEN o.does = 'cancel' THEN NULL
                    WHEN o.does <> 'lease' THEN CASE WHEN j.token IS DISTINCT FROM o.token THEN 'fails' END
                    WHEN j.token = o.token THEN 'applied'
                    WHEN j.due IS NOT NULL THEN 'fails'
                END AS verdict) l
                WHERE b_wave[o.batch] > wave AND (l.verdict IS NOT NULL
                    OR j.due IS NOT NULL AND (o.does <> 'extend' OR o.at <> j.leased_until))
            LOOP
                IF verdict IS NULL THEN
                    jobs_go := jobs_go OR goes;
                    jobs_change := jobs_change OR NOT goes;
                ELSE
                    refused[batch] := true;
                    RETURN NEXT;
                END IF;
            END LOOP;
            value := NULL; version := NULL; due := NULL; attempt := NULL; leased_until := NULL;
            pending_due := NULL; pending_payload := NULL; pending_sooner := NULL;
        END IF;

        IF round > 1 THEN
            verdict := 'holds'; op := NULL;
            FOR nth IN 1 .. cardinality(b_id) LOOP
                IF b_wave[nth] > wave AND was_refused[nth] AND NOT refused[nth] THEN
                    batch := nth;
                    RETURN NEXT;
                END IF;
            END LOOP;
        END IF;
        -- The first wave of which anything holds.
        judged_after := wave;
        wave := (SELECT min(o.w) FROM unnest(b_wave, refused) AS o (w, refused)
            WHERE o.w > judged_after AND NOT o.refused);
        EXIT WHEN wave IS NULL;

        -- Write.

        IF 'put' = ANY (r_does) THEN
            INSERT INTO evenkeel.record AS r (part, space, grp, id, value, version, expires_at)
            SELECT of_part, o.space, o.grp, o.id, o.value, b_id[o.batch], o.expires_at
            FROM unnest(r_batch, r_does, r_space, r_grp, r_id, r_value, r_expires_at)
                AS o (batch, does, space, grp, id, value, expires_at)
            WHERE o.does = 'put' AND b_wave[o.batch] = wave AND NOT refused[o.batch]
            ON CONFLICT (part, space, grp, id) DO UPDATE
            SET value = excluded.value, version = excluded.version, expires_at = excluded.expires_at;
        END IF;
        IF 'delete' = ANY (r_does) THEN
            DELETE FROM evenkeel.record d
            USING unnest(r_batch, r_does, r_space, r_grp, r_id) AS o (batch, does, space, grp, id)
            CROSS JOIN LATERAL (
                SELECT r.ctid FROM evenkeel.record r
                WHERE r.part = of_part AND r.space = o.space AND r.grp = o.grp AND r.id = o.id LIMIT 1
            ) r
            WHERE o.does = 'delete' AND b_wave[o.batch] = wave AND NOT refused[o.batch] AND d.ctid = r.ctid;
        END IF;

        -- The rows of jobs were locked above, so that they are where they are found.
        IF jobs_go THEN
            DELETE FROM evenkeel.job d
            USING unnest(j_batch, j_does, j_queue, j_id) AS o (batch, does, queue, id)
            CROSS JOIN LATERAL (
                SELECT j.ctid, j.pending_due FROM evenkeel.job j
                WHERE j.part = of_part AND j.queue = o.queue AND j.id = o.id LIMIT 1
            ) j
            WHERE b_wave[o.batch] = wave AND NOT refused[o.batch]
              AND (o.does = 'cancel' OR o.does = 'ack' AND j.pending_due IS NULL) AND d.ctid = j.ctid;
        END IF;
        IF jobs_change THEN
            UPDATE evenkeel.job u SET
                due = CASE o.does WHEN 'ack' THEN u.pending_due
                    WHEN 'retry' THEN least(o.at, u.pending_sooner) ELSE u.due END,
                payload = CASE WHEN o.does = 'ack' OR o.does = 'retry' AND u.pending_sooner IS NOT NULL
                    THEN u.pending_payload ELSE u.payload END,
                attempt = CASE WHEN o.does = 'ack' THEN 0 ELSE u.attempt END,
                token = CASE WHEN o.does = 'extend' THEN u.token END,
                leased_until = CASE WHEN o.does = 'extend' THEN o.at END,
                pending_due = CASE WHEN o.does = 'extend' THEN u.pending_due END,
                pending_payload = CASE WHEN o.does = 'extend' THEN u.pending_payload END,
                pending_sooner = CASE WHEN o.does = 'extend' THEN u.pending_sooner END
            FROM unnest(j_batch, j_does, j_queue, j_id, j_at) AS o (batch, does, queue, id, at)
            CROSS JOIN LATERAL (
                SELECT j.ctid FROM evenkeel.job j
                WHERE j.part = of_part AND j.queue = o.queue AND j.id = o.id LIMIT 1
            ) j
            WHERE b_wave[o.batch] = wave AND NOT refused[o.batch] AND o.does NOT IN ('cancel', 'lease')
              AND u.ctid = j.ctid AND (o.does <> 'extend' OR u.leased_until <> o.at);
        END IF;

        -- A push on a leased job waits in the job for the lease's end.
        IF p_does && ARRAY['keep', 'lease'] THEN
            INSERT INTO evenkeel.job AS j (part, queue, id, due, payload, attempt, token, leased_until)
            SELECT of_part, o.queue, o.id, o.due, o.payload, CASE o.does WHEN 'lease' THEN 1 ELSE 0 END,
                o.token, o.until
            FROM unnest(p_batch, p_does, p_queue, p_id, p_due, p_payload, p_token, p_until)
                AS o (batch, does, queue, id, due, payload, token, until)
            WHERE o.does <> 'sooner' AND b_wave[o.batch] = wave AND NOT refused[o.batch]
            ON CONFLICT (part, queue, id) DO UPDATE
            SET pending_due = excluded.due, pending_payload = excluded.payload
            WHERE j.token IS NOT NULL AND j.pending_due IS NULL;
        END IF;
        IF 'sooner' = ANY (p_does) THEN
            INSERT INTO evenkeel.job AS j (part, queue, id, due, payload)
            SELECT of_part, o.queue, o.id, o.due, o.payload
            FROM unnest(p_batch, p_does, p_queue, p_id, p_due, p_payload)
                AS o (batch, does, queue, id, due, payload)
            WHERE o.does = 'sooner' AND b_wave[o.batch] = wave AND NOT refused[o.batch]
            ON CONFLICT (part, queue, id) DO UPDATE SET
                due = CASE WHEN j.token IS NULL THEN least(j.due, excluded.due) ELSE j.due END,
                payload = CASE WHEN j.token IS NULL THEN excluded.payload ELSE j.payload END,
                pending_due = CASE WHEN j.token IS NOT NULL THEN least(j.pending_due, excluded.due) END,
                pending_payload = CASE WHEN j.token IS NOT NULL THEN excluded.payload END,
                pending_sooner = CASE WHEN j.token IS NOT NULL THEN least(j.pending_sooner, excluded.due) END;
        END IF;

        IF 'trim' = ANY (s_does) THEN
            FOR nth IN 1 .. cardinality(s_batch) LOOP
                IF s_does[nth] = 'trim' AND b_wave[s_batch[nth]] = wave AND NOT refused[s_batch[nth]] THEN
                    UPDATE evenkeel.stream s SET trimmed = greatest(s.trimmed, least(s_through[nth], s.version))
                    WHERE s.part = of_part AND s.stream = s_stream[nth];
                END IF;
            END LOOP;
        END IF;
        IF 'append' = ANY (s_does) THEN
            appending := 0;
            first_event := NULL;
            last_event := 0;
            goes_to := array_fill(NULL::bigint, ARRAY[cardinality(s_batch)]);
            FOR nth IN 1 .. cardinality(s_batch) LOOP
                EXIT WHEN b_wave[s_batch[nth]] > wave;
                IF b_wave[s_batch[nth]] = wave THEN
                    first_event := coalesce(first_event, last_event + 1);
                    IF s_does[nth] = 'append' AND NOT refused[s_batch[nth]] THEN
                        goes_to[nth] := appending + 1;
                        appending := appending + s_count[nth];
                    END IF;
                END IF;
                last_event := last_event + s_count[nth];
            END LOOP;
            CONTINUE WHEN appending = 0;

            -- From here to the end of the transaction nobody else appends to the partition, so that
            -- positions have no gaps and become visible in their order.
            INSERT INTO evenkeel.head AS h (part, position) VALUES (of_part, appending)
            ON CONFLICT (part) DO UPDATE SET position = h.position + excluded.position
            RETURNING h.position - appending INTO log_ended;

            INSERT INTO evenkeel.stream AS s (part, stream, version)
            SELECT of_part, o.stream, o.count
            FROM unnest(s_stream, s_count, goes_to) AS o (stream, count, goes_to)
            WHERE o.goes_to IS NOT NULL
            ON CONFLICT (part, stream) DO UPDATE SET version = s.version + excluded.version;

            INSERT INTO evenkeel.event
                (part, position, stream, version, id, kind, content_type, payload, metadata, recorded_at, batch)
            SELECT of_part, log_ended + goes_to[o.append] + o.nth, o.stream, stream_had[o.append] + 1 + o.nth,
                o.id, o.kind, o.content_type, o.payload, o.metadata,
                b_now[s_batch[o.append]], b_id[s_batch[o.append]]
            FROM unnest(
                e_append[first_event:last_event], e_nth[first_event:last_event], e_stream[first_event:last_event],
                e_id[first_event:last_event], e_kind[first_event:last_event],
                e_content_type[first_event:last_event], e_payload[first_event:last_event],
                e_metadata[first_event:last_event]
            ) AS o (append, nth, stream, id, kind, content_type, payload, metadata)
            WHERE goes_to[o.append] IS NOT NULL;

            verdict := 'appended';
            FOR nth IN 1 .. cardinality(s_batch) LOOP
                IF goes_to[nth] IS NOT NULL THEN
                    batch := s_batch[nth];
                    op := s_op[nth];
                    stream_version := stream_had[nth] + 1;
                    position := log_ended + goes_to[nth];
                    RETURN NEXT;
                END IF;
            END LOOP;
            stream_version := NULL; position := NULL;
        END IF;
    END LOOP;
END
$$;
