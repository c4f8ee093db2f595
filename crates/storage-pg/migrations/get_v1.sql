-- Looks at records, each named by the same place of the arrays; a row for each that is there, with its
-- place from 1.
--
-- A function, so that it is planned once: the planner would plan a statement anew for every number of
-- records, which takes longer than to look at them.
CREATE FUNCTION evenkeel.get_v1(
    of_part text, of_space text[], of_grp text[], of_id text[],
    OUT nth bigint, OUT value bytea, OUT version uuid, OUT expires_at bigint
) RETURNS SETOF record LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT k.nth, r.value, r.version, r.expires_at
    FROM unnest(of_space, of_grp, of_id) WITH ORDINALITY AS k (space, grp, id, nth)
    -- `LIMIT` keeps the planner at one look into the index for each.
    CROSS JOIN LATERAL (
        SELECT r.value, r.version, r.expires_at FROM evenkeel.record r
        WHERE r.part = of_part AND r.space = k.space AND r.grp = k.grp AND r.id = k.id LIMIT 1
    ) r;
END
$$;
