package flowlog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"squall/dissect"
	"squall/dissect/attempt"
)

// Format is a kind of log.
type Format uint8

const (
	None      Format = iota
	ZeekTSV          // conn.log with its heading
	ZeekJSON         // conn.log as JSON lines
	EVE              // eve.json of Suricata
	OtherZeek        // another log of Zeek: no connections in it
	NFDump           // nfdump -o csv: counted, no attempts
	AWS              // VPC flow log, text: counted
	GCP              // VPC flow log, JSON lines: counted
	Azure            // NSG or VNet flow log, JSON: counted
)

var formatNames = [...]string{"", "zeek conn", "zeek conn json", "suricata flow", "zeek", "nfdump csv", "aws vpc flow", "gcp vpc flow", "azure flow"}

func (f Format) String() string { return formatNames[f] }

// Attempts reports a log whose connections become attempts.
func (f Format) Attempts() bool { return f == ZeekTSV || f == ZeekJSON || f == EVE }

// Counted reports flow records that are counted, but tell no outcome.
func (f Format) Counted() bool { return f >= NFDump }

// HeadBytes is how much of the beginning Recognise wants to see, where there
// is so much.
const HeadBytes = 64 << 10

// Recognise tells a log by its first bytes, uncompressed.
func Recognise(head []byte) Format {
	head = bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), "\r\n\t ")
	line, _, _ := bytes.Cut(head, []byte("\n"))
	switch {
	case bytes.HasPrefix(line, []byte("#separator ")) || bytes.HasPrefix(line, []byte("#fields")):
		for l := range bytes.SplitSeq(head, []byte("\n")) {
			if !bytes.HasPrefix(l, []byte("#")) {
				break
			}
			if f := bytes.Fields(l); len(f) > 1 && string(f[0]) == "#path" {
				if string(f[1]) == "conn" {
					return ZeekTSV
				}
				return OtherZeek
			}
			if bytes.HasPrefix(l, []byte("#fields")) && bytes.Contains(l, []byte("conn_state")) && bytes.Contains(l, []byte("id.orig_h")) {
				return ZeekTSV
			}
		}
		return OtherZeek
	case bytes.HasPrefix(line, []byte("{")):
		has := func(key string) bool { return bytes.Contains(line, []byte(`"`+key+`"`)) }
		switch {
		case has("event_type") && has("timestamp"):
			return EVE
		case has("id.orig_h") && has("proto") && (has("conn_state") || has("_path") && has("conn")):
			return ZeekJSON
		case has("id.orig_h"):
			return OtherZeek
		case has("jsonPayload") && has("connection"):
			return GCP
		case bytes.Contains(head, []byte(`"records"`)) && (bytes.Contains(head, []byte("flowTuples")) || bytes.Contains(head, []byte("flowRecords"))):
			return Azure
		}
	case isNFDump(string(line)):
		return NFDump
	case isAWS(string(line)):
		return AWS
	}
	return None
}

// Stats says what became of a log's lines.
type Stats struct {
	Records, Bytes int64 // lines that hold something
	First, Last    int64 // of its connections, ns
	Ledger         dissect.Ledger
	LeftOut        int64 // times that an exporter says it left records out (SKIPDATA)
	// Bad is the first line that could not be read, and why; empty without one.
	Bad       string
	BadLine   int64
	BadOffset int64
	Cut       bool // only the last line is bad, and it has no end
}

// Reader turns logs into attempts. Logs of one observer are read in the order
// of their times, so that what one leaves open the next may go on with.
type Reader struct {
	// True gives the time of the common clock when the logger's showed t; nil =
	// its clock is that one.
	True func(t int64) int64

	add           func(*attempt.Record)
	after, before int64

	end   int64 // how far the logs reach
	begin int64
	held  []*conn // that wait, in the order of the log
	open  map[tuple]*conn
}

// NewReader makes a reader that hands each attempt to add, which copies it.
// Connections that begin before after, or not before before, are left out; 0 =
// no bound.
func NewReader(after, before int64, add func(*attempt.Record)) *Reader {
	return &Reader{add: add, after: after, before: before, open: map[tuple]*conn{}}
}

// maxLine bounds a line of a log.
const maxLine = 1 << 20

// lines calls use with each line, without its end, and its offset. A line that
// is too long is nil.
func lines(in io.Reader, use func(line []byte, offset int64, whole bool)) (int64, error) {
	r := bufio.NewReaderSize(in, maxLine)
	offset := int64(0)
	for {
		line, err := r.ReadSlice('\n')
		n := int64(len(line))
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				line, err = r.ReadSlice('\n')
				n += int64(len(line))
			}
			use(nil, offset, true)
			offset += n
		} else if n > 0 {
			use(bytes.TrimRight(line, "\r\n"), offset, err == nil)
			offset += n
		}
		if errors.Is(err, io.EOF) {
			return offset, nil
		}
		if err != nil {
			return offset, err
		}
	}
}

var (
	errSkip = errors.New("no connection")
	errNone = errors.New("nothing")
	// errLeftOut stands where the exporter had no room for what it saw.
	errLeftOut = errors.New("records were left out")
)

// Read reads a log to its end; file is its number among the inputs. An error
// is one of reading; lines that make no sense are in the stats.
func (r *Reader) Read(file uint32, f Format, in io.Reader) (Stats, error) {
	var s Stats
	var parse func([]byte, *conn) error
	switch f {
	case ZeekTSV:
		parse = (&zeekTSV{}).parse
	case ZeekJSON:
		parse = zeekJSON
	case EVE:
		parse = eveFlow
	default:
		return s, fmt.Errorf("%v holds no attempts", f)
	}
	number := int64(0)
	var c conn
	n, err := lines(in, func(line []byte, offset int64, whole bool) {
		number++
		c = conn{payload: [2]int64{-1, -1}}
		err := errors.New("a line of more than a megabyte")
		if line != nil {
			err = parse(line, &c)
		}
		if errors.Is(err, errNone) {
			return
		}
		s.Records++
		switch {
		case errors.Is(err, errSkip):
			s.Ledger[dissect.BucketOther]++
			return
		case err != nil:
			s.Ledger[dissect.BucketMalformed]++
			if s.Bad == "" {
				s.Bad, s.BadLine, s.BadOffset, s.Cut = err.Error(), number, offset, !whole
			}
			return
		}
		if r.True != nil {
			c.start, c.last = r.True(c.start), r.True(c.last)
		}
		c.line, c.offset, c.file = number, offset, file
		if s.First == 0 || c.start < s.First {
			s.First = c.start
		}
		s.Last = max(s.Last, c.last)
		c.letters()
		s.Ledger[r.take(&c)]++
	})
	s.Bytes = n
	if s.Ledger[dissect.BucketMalformed] > 1 {
		s.Cut = false
	}
	return s, err
}

// take sorts a connection in.
func (r *Reader) take(in *conn) dissect.Bucket {
	if r.after != 0 && in.start < r.after || r.before != 0 && in.start >= r.before {
		return dissect.BucketFiltered
	}
	if r.begin == 0 || in.start < r.begin {
		r.begin = in.start
	}
	r.end = max(r.end, in.last)
	defer r.release()
	k := tuple{in.from, in.to, in.proto}
	old := r.open[k]
	if b := in.bucket(); b != dissect.BucketAttempt {
		// An answer that came after its question had been written down.
		if old == nil || old.rec.Answer != dissect.AnswerNone || !in.has('h') || in.start > old.deadline() {
			return b
		}
		in.history = "S" + strings.TrimLeft(in.history, "^")
	}
	c := *in
	if old != nil {
		if old.rec.Answer == dissect.AnswerNone && c.start > old.last && c.start <= old.last+(old.deadline()-old.last)*5/4 && (onlySYNs(&c) || c.has('h') || c.has('r')) {
			r.join(old, &c)
			return dissect.BucketAttempt
		}
		// Ports used again: the client had given up (rule 10).
		if c.start <= old.deadline() {
			old.rec.GaveUp = c.start
			o := dissect.OutcomeTimeout
			if old.rec.Answer == dissect.AnswerSynAck {
				o = dissect.OutcomeStalled
			}
			old.decide(o, dissect.EvidenceSilence, c.start)
			old.waits = false
		}
		delete(r.open, k)
	}
	c.judge()
	if !c.waits {
		r.add(&c.rec)
		return dissect.BucketAttempt
	}
	h := c
	r.held = append(r.held, &h)
	if h.proto == dissect.ProtoTCP {
		r.open[k] = &h
	}
	return dissect.BucketAttempt
}

// onlySYNs: nothing but the client's SYNs was seen.
func onlySYNs(c *conn) bool { return strings.Trim(c.history, "S^") == "" && c.packets[1] == 0 }

// join adds a sibling: a logger that writes an unanswered SYN down after five
// seconds calls the next repeat of it a new connection. Whether its ISN is the
// same is not logged; that a client uses the port again so soon is rarer.
func (r *Reader) join(old, c *conn) {
	sends, gap := old.transmissions, c.start-old.last
	c.start = old.start
	for i := range c.packets {
		c.packets[i] += old.packets[i]
		c.bytes[i] += old.bytes[i]
	}
	more := c.packets[0] - old.packets[0]
	c.line, c.offset, c.file = old.line, old.offset, old.file
	c.judge()
	if onlySYNs(c) || c.rec.Answer == dissect.AnswerRST || c.rec.Answer == dissect.AnswerAbort {
		c.rec.Transmissions = sends + int32(min(max(more, 1), 64))
	} else {
		c.rec.Transmissions = sends + 1
	}
	c.transmissions = c.rec.Transmissions
	if c.gap = gap; more > 1 && onlySYNs(c) {
		c.gap = max(gap, c.last-old.last-gap)
	}
	if !c.waits {
		r.add(&c.rec)
		old.gone = true
		delete(r.open, tuple{old.from, old.to, old.proto})
		return
	}
	*old = *c
}

// release settles those whose time has passed, in the order of the log.
func (r *Reader) release() {
	n := 0
	for n < len(r.held) && (r.held[n].gone || !r.held[n].waits || r.held[n].deadline()+flushDelay < r.end || len(r.held)-n > maxHeld) {
		r.let(r.held[n], r.end)
		r.held[n] = nil
		n++
	}
	r.held = r.held[n:]
}

func (r *Reader) let(c *conn, end int64) {
	if c.gone {
		return
	}
	if c.waits {
		c.settle(end)
		if k := (tuple{c.from, c.to, c.proto}); r.open[k] == c {
			delete(r.open, k)
		}
	}
	r.add(&c.rec)
}

// Finish settles what the end of the logs leaves open and gives their span;
// both are 0 where there was nothing.
func (r *Reader) Finish() (first, last int64) {
	for _, c := range r.held {
		r.let(c, r.end)
	}
	r.held, r.open = nil, map[tuple]*conn{}
	return r.begin, r.end
}
