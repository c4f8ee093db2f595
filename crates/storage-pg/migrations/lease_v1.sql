-- Takes due jobs of a queue, earliest first.
--
-- Jobs that a commit is about to change are passed over (SKIP LOCKED) and looked at again next time,
-- so leasing waits for nobody. A row that was changed between the snapshot and the lock is judged
-- anew as it stands, by the conditions here.
--
-- A row for each job taken, and a last one that carries only `next_due`.
CREATE FUNCTION evenkeel.lease_v1(
    of_part text, of_queue text, most bigint, at_time bigint, hold_until bigint,
    OUT id text, OUT due bigint, OUT payload bytea, OUT attempt integer, OUT token uuid, OUT next_due bigint
) RETURNS SETOF record LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    taken text[];
    places tid[];
BEGIN
    SELECT coalesce(array_agg(j.id), '{}'), coalesce(array_agg(j.place), '{}') INTO taken, places FROM (
        SELECT j.id, j.ctid AS place FROM evenkeel.job j
        WHERE j.part || '/' || j.queue = of_part || '/' || of_queue AND j.ready_at <= at_time
        ORDER BY j.ready_at, j.id LIMIT most FOR UPDATE SKIP LOCKED
    ) j;
    -- What was pushed during a lease that ran out takes effect now.
    RETURN QUERY UPDATE evenkeel.job j SET
        due = CASE WHEN j.pending_sooner IS NULL THEN j.due ELSE least(j.due, j.pending_sooner) END,
        payload = CASE WHEN j.pending_sooner IS NULL THEN j.payload ELSE j.pending_payload END,
        attempt = least(j.attempt, 2147483646) + 1,
        token = gen_random_uuid(),
        leased_until = hold_until,
        pending_due = NULL, pending_payload = NULL, pending_sooner = NULL
    FROM unnest(places) AS o (place) WHERE j.ctid = o.place
    RETURNING j.id, j.due, j.payload, j.attempt, j.token, NULL::bigint;
    next_due := (
        SELECT j.ready_at FROM evenkeel.job j
        WHERE j.part || '/' || j.queue = of_part || '/' || of_queue AND j.id <> ALL (taken)
        ORDER BY j.ready_at LIMIT 1
    );
    RETURN NEXT;
END
$$;
