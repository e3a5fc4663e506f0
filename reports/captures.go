package reports

import (
	"math"
	"strconv"

	"squall/dissect"
	"squall/dissect/pipeline"
)

// Captures is the table of inputs: their quality and the ledger, whose buckets
// add up to the packets.
func Captures() *Of[pipeline.Capture] {
	type c = pipeline.Capture
	fields := []field[c]{
		str("capture_file", "as it was given", func(v *c) string { return v.Path }),
		str("observer_name", "tap, where it was given a name", func(v *c) string { return v.Observer }),
		str("format", "pcap or pcapng", func(v *c) string { return v.Format }),
		str("compression", "gzip, zstd, lz4, bzip2", func(v *c) string { return v.Compression }),
		list("link_types", "LINKTYPE numbers", func(v *c) (out []string) {
			for _, l := range v.LinkTypes {
				out = append(out, strconv.Itoa(int(l)))
			}
			return out
		}),
		optNum("snaplen", "bytes", "largest snapshot length that was declared", 0, func(v *c) int64 { return v.Snaplen }),
		num("packets", "", "records read", func(v *c) int64 { return v.Packets }),
		num("bytes", "bytes", "on the wire", func(v *c) int64 { return v.Bytes }),
		optWhen("first_time", "earliest packet", func(v *c) int64 { return v.First }),
		optWhen("last_time", "latest packet", func(v *c) int64 { return v.Last }),
		span("duration_ns", "last less first", func(v *c) int64 { return v.Last - v.First }),
		ratio("packet_rate", "1/s", "packets by duration", func(v *c) float64 { return float64(v.Packets) / (float64(v.Last-v.First) / 1e9) }),
		optNum("drops", "", "packets that the capturing side says it lost", -1, func(v *c) int64 { return v.Drops }),
		num("truncated", "", "packets cut by the snapshot length", func(v *c) int64 { return v.Truncated }),
		num("out_of_order", "", "packets earlier than their predecessor", func(v *c) int64 { return v.OutOfOrder }),
		num("clock_steps", "", "jumps back by more than a second", func(v *c) int64 { return v.ClockSteps }),
		num("stray_times", "", "packets with a time more than a day from those before and after them, which agree; they have been given the one after", func(v *c) int64 { return v.StrayTimes }),
		str("clock_source", "given, estimated, reference or assumed; empty where there was one clock", func(v *c) string { return v.Clock.Source }),
		field[c]{Column{"clock_offset_ns", Int, "ns", "how far its clock was ahead at clock_at; the times have been set right"}, func(_ *Env, v *c) Value { return clocked(v, v.Clock.Offset) }},
		optNum("clock_at_ns", "ns", "time that its clock showed when it was that far ahead, since the epoch", 0, func(v *c) int64 { return v.Clock.At }),
		ratio("clock_drift_ppm", "1e-6", "how much its clock ran fast", func(v *c) float64 {
			if v.Clock.Source == "" {
				return math.NaN()
			}
			return v.Clock.Drift
		}),
		field[c]{Column{"clock_error_ns", Int, "ns", "how far its times may still be off; absent where nobody knows"}, func(_ *Env, v *c) Value {
			if v.Clock.Source == "" || v.Clock.Bound < 0 {
				return null
			}
			return Value{Int: v.Clock.Bound}
		}},
		num("gaps", "", "silences of more than 30 s", func(v *c) int64 { return v.Gaps }),
		list("missing_files", "files that by their names should lie before this one in its rotation, the first hundred", func(v *c) []string { return v.Missing }),
		num("missing_count", "", "how many files they are", func(v *c) int64 { return v.MissingCount }),
		optNum("hole_ns", "ns", "from the end of the file before to this one, where files are missing or a row of files that else touch is torn", 0, func(v *c) int64 { return v.Hole }),
		str("unread", "why it was not read, or not to its end: --after and --before", func(v *c) string { return v.Unread }),
		num("read_bytes", "bytes", "of the file that were read", func(v *c) int64 { return v.ReadOnDisk }),
		flag("damaged", "reading stopped early", func(v *c) bool { return v.Damage != nil && !v.Damage.Tail }),
		str("damage", "where and why reading stopped early", func(v *c) string {
			if v.Damage == nil {
				return ""
			}
			return "offset " + strconv.FormatInt(v.Damage.Offset, 10) + ", frame " + strconv.FormatInt(v.Damage.Frame, 10) + ": " + v.Damage.Reason
		}),
	}
	for b := range dissect.NumBuckets {
		fields = append(fields, num("ledger_"+b.String(), "", "packets in the bucket \""+b.String()+"\" of the ledger", func(v *c) int64 { return v.Ledger[b] }))
	}
	return define("captures", "an input", false, fields...).leads("capture_file observer_name packets bytes first_time last_time drops truncated damaged")
}

// clocked is a number that is absent where there was one clock.
func clocked(c *pipeline.Capture, n int64) Value {
	if c.Clock.Source == "" {
		return null
	}
	return Value{Int: n}
}
