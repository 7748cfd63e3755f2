-- One row a scheduled flight, with what is known before it leaves. The window of days is the snapshot's.
-- A flight without a plane record or a weather hour keeps its row: the joins are outer, the model takes nulls.
-- Known weakness of this data: the tail number is missing for some flights just because they were cancelled.
WITH schedule AS (
  SELECT
    carrier, flight, origin, date, dest, tailnum, distance,
    sched_dep_time DIV 100 AS dep_hour,
    -- 24:00 is midnight, hour 0 of that day's timetable
    (sched_dep_time DIV 100) % 24 * 60 + sched_dep_time % 100 AS dep_minute,
    (sched_arr_time DIV 100) % 24 * 60 + sched_arr_time % 100 AS arr_minute
  FROM flights
  WHERE date >= :ds
)
SELECT
  s.carrier,
  s.flight,
  s.origin,
  s.date,
  s.dest,
  s.dep_minute,
  s.arr_minute,
  dayofweek(s.date) AS day_of_week,
  s.distance,
  count(*) OVER (PARTITION BY s.origin, s.date, s.dep_hour) AS departures_this_hour,
  a.lat AS dest_lat,
  a.lon AS dest_lon,
  year(s.date) - p.year AS plane_age,
  p.seats AS plane_seats,
  p.manufacturer AS plane_maker,
  w.temp,
  w.dewp,
  w.humid,
  w.wind_dir,
  w.wind_speed,
  w.wind_gust,
  w.precip,
  w.pressure,
  w.visib
FROM schedule AS s
LEFT JOIN airports AS a ON a.faa = s.dest
LEFT JOIN planes AS p ON p.tailnum = s.tailnum
LEFT JOIN (
  -- one row an hour, whatever the feed repeats
  SELECT
    origin, date, hour,
    max(temp) AS temp, max(dewp) AS dewp, max(humid) AS humid,
    max(wind_dir) AS wind_dir, max(wind_speed) AS wind_speed, max(wind_gust) AS wind_gust,
    max(precip) AS precip, min(pressure) AS pressure, min(visib) AS visib
  FROM weather
  GROUP BY origin, date, hour
) AS w ON w.origin = s.origin AND w.date = s.date AND w.hour = s.dep_hour
