-- Whether something is trimmed whose contents were not swept yet.
--
-- Sorting is off, too: only the index of what is not swept has what it asks for in order. Without, the
-- planner might go through all streams, of which it expects many to be so.
CREATE FUNCTION evenkeel.unswept_v1(of_part text) RETURNS boolean LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM FROM evenkeel.stream s WHERE s.part = of_part AND s.swept < s.trimmed ORDER BY s.swept LIMIT 1;
    RETURN FOUND;
END
$$;
