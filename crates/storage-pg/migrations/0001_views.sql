-- For people: what is stored, with times as timestamps and bytes as what they spell.

-- Bytes as the JSON they are; else as the text they are; else in base64.
CREATE FUNCTION evenkeel.readable(value bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    spelled text;
BEGIN
    BEGIN
        spelled := convert_from(value, 'UTF8');
    EXCEPTION WHEN others THEN
        RETURN to_jsonb(encode(value, 'base64'));
    END;
    BEGIN
        RETURN spelled::jsonb;
    EXCEPTION WHEN others THEN
        RETURN to_jsonb(spelled);
    END;
END
$$;

-- Null beyond the years that a timestamp spans.
CREATE FUNCTION evenkeel.instant(micros bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT CASE WHEN micros BETWEEN -210000000000000000 AND 9000000000000000000
        THEN timestamptz 'epoch' + micros * interval '1 microsecond' END
$$;

CREATE VIEW evenkeel.record_json AS
SELECT part, space, grp AS "group", id, evenkeel.readable(value) AS value, version,
       evenkeel.instant(expires_at) AS expires_at
FROM evenkeel.record;

CREATE VIEW evenkeel.event_json AS
SELECT e.part, e.position, e.stream, e.version, e.id, e.kind, e.content_type,
       evenkeel.readable(e.payload) AS payload, evenkeel.readable(convert_to(e.metadata, 'UTF8')) AS metadata,
       evenkeel.instant(e.recorded_at) AS recorded_at, e.batch
FROM evenkeel.event e JOIN evenkeel.stream s ON s.part = e.part AND s.stream = e.stream
WHERE e.version > s.trimmed;

CREATE VIEW evenkeel.job_json AS
SELECT part, queue, id, evenkeel.instant(due) AS due, evenkeel.readable(payload) AS payload, attempt,
       token IS NOT NULL AS leased, evenkeel.instant(leased_until) AS leased_until,
       evenkeel.instant(ready_at) AS ready_at
FROM evenkeel.job;
