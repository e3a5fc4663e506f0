package capture

// LinkType is a LINKTYPE_ value of the tcpdump.org registry. It is wider than
// gopacket's uint8, which turns SLL2 (276) into 20.
type LinkType uint16

// Link types that squall names. Others are carried by number.
const (
	LinkNull      LinkType = 0
	LinkEthernet  LinkType = 1
	LinkPPP       LinkType = 9
	LinkPPPHDLC   LinkType = 50
	LinkPPPoE     LinkType = 51
	LinkRaw       LinkType = 101
	LinkCHDLC     LinkType = 104
	LinkLoop      LinkType = 108
	LinkLinuxSLL  LinkType = 113
	LinkIPv4      LinkType = 228
	LinkIPv6      LinkType = 229
	LinkLinuxSLL2 LinkType = 276
)

// Packet is one captured packet. Data aliases the buffer of the batch it came
// in and is valid until that batch is released; whoever keeps bytes copies
// them.
type Packet struct {
	Time    int64 // nanoseconds since the Unix epoch, UTC
	Data    []byte
	OrigLen int      // bytes on the wire; len(Data) < OrigLen means the snapshot length cut it
	Link    LinkType // of the interface it was captured on
	Iface   uint16   // index of that interface inside its file
	File    uint32   // index of the input in Source.Files
	Frame   int64    // 1-based number of the record in its file, as Wireshark counts
	Offset  int64    // byte offset of the record in the (uncompressed) file
	Flags   uint32   // epb_flags of pcapng, which a live capture fills in; 0 = nothing is known
}

// Bits of Packet.Flags: draft-ietf-opsawg-pcapng section 4.3.1.
const (
	FlagDirection   = 3      // 1 = inbound, 2 = outbound
	FlagInbound     = 1      // it came in
	FlagOutbound    = 2      // it went out
	FlagUnicast     = 1 << 2 // addressed to this host
	FlagMulticast   = 2 << 2
	FlagBroadcast   = 3 << 2
	FlagPromiscuous = 4 << 2 // addressed to another host
)

// Batch is a run of packets in time order together with the buffers that hold
// their bytes. The consumer calls Release exactly once when it needs neither
// any more; a batch that several goroutines read is retained once for each.
type Batch struct {
	Packets []Packet
	refs    batchRefs
}

// Source yields packets. Next returns io.EOF after the last batch; a damaged
// file is not an error of Next: it ends early, and its FileStats say where and
// why. An error is an input that cannot be read at all, or a broken device.
type Source interface {
	Next() (*Batch, error)
	// Files describes every input, in the order of Packet.File. Counters are
	// final after Next has returned io.EOF and may be read while reading.
	Files() []FileStats
	Close() error
}

// FileStats is what a reader knows about one input.
type FileStats struct {
	Path        string // as given by the user, "-" for standard input
	Observer    string // the tap, where it was given a name
	Clock       Clock  // by which the times of the packets were set right
	Format      string // "pcap", "pcapng", or the interface kind when live
	Compression string // "", "gzip", "zstd", "lz4", "bzip2"
	LinkTypes   []LinkType
	Interfaces  int   // described by a pcapng, 0 = the format has none
	Snaplen     int64 // largest snapshot length declared, 0 = none declared
	Packets     int64
	Bytes       int64 // sum of the original lengths
	SizeOnDisk  int64 // bytes of the file, 0 when unknown
	ReadOnDisk  int64 // how many of them have been read so far, for progress
	First, Last int64 // earliest and latest packet time, ns; 0 without packets
	Ended       int64 // until when the capturing side listened (pcapng ISB), ns; 0 = not stated
	Drops       int64 // packets the capturing side says it lost (pcapng ISB), -1 = not stated
	Truncated   int64 // packets cut by the snapshot length
	OutOfOrder  int64 // packets earlier than their predecessor
	ClockSteps  int64 // jumps back by more than a second
	StrayTimes  int64 // packets with a time far from those before and after them, which agree: they have the one after
	Gaps        int64 // silences longer than the gap threshold
	Comment     string
	Damage      *Damage // nil = read to a clean end
	// Unread says why packets of the input were not read: it lies outside
	// Options.Window. First and Last are then set where they are known.
	Unread string `json:",omitempty"`
	// Missing are the files that by their names should lie before this one, the
	// first hundred; MissingCount is how many they are. Hole is the time between
	// the end of the file before and this one where files are missing or where a
	// row of files that else touch is torn, ns. See MarkHoles.
	Missing      []string `json:",omitempty"`
	MissingCount int64    `json:",omitempty"`
	Hole         int64    `json:",omitempty"`
	// Index is there when Options.Index asked for it and the file was read.
	Index *Index `json:"-"`
	// Finished says that nothing more will come of it.
	Finished bool `json:"-"`
}

// Mark is how far an input has been taken by a reader that was broken off.
type Mark struct {
	Frames int64      // packets that were taken
	Done   *FileStats // what is known of one that was taken whole, and is not read again; else nil
}

// Damage says where and why the reading of a file stopped early.
type Damage struct {
	Offset int64  // byte offset in the uncompressed stream
	Frame  int64  // number of the record that could not be read, 1-based
	Reason string // what was expected and what was found
	// Tail is set when only the last record is incomplete, as every killed
	// tcpdump leaves it: noted, not an error.
	Tail bool
}
