package reports

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"squall/dissect"
)

const (
	// hiveOpen is how many partitions are written at the same time; the one that
	// waited longest is closed first, and goes on in a further part.
	hiveOpen = 64
	// MaxHiveShards bounds the directories of a day.
	MaxHiveShards = 10000
	hiveSeed      = 0x68697665
)

// WriteHive writes rows as Parquet in the layout of Hive, that Trino, Spark and
// DuckDB read as one table with two columns more:
//
//	dir/dt=2010-12-22/shard=0003/part-0000.parquet
//
// dt is the UTC day of the table's first time, __HIVE_DEFAULT_PARTITION__ where
// there is none. shard is a hash of the client (of all the row where the table
// has none), so that all rows of a client lie in one shard of a day; 1 shard is
// 0000. Parts appear under their names when they are whole. Parts that are there
// already are an error, never overwritten.
func WriteHive(dir string, t *Table, rows Rows, shards int, opt Options) (n int64, err error) {
	at := slices.IndexFunc(t.Columns, func(c Column) bool { return c.Kind == Time })
	if at < 0 {
		return 0, fmt.Errorf("table %s has no time to make days of", t.Name)
	}
	client := slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == "client_id" })
	h := &hive{dir: dir, table: t, opt: opt, open: map[string]*hivePart{}, parts: map[string]int{}}
	for row, rerr := range rows {
		if err = rerr; err != nil {
			break
		}
		if err = h.write(h.partition(row, at, client, shards), row); err != nil {
			break
		}
		n++
	}
	for _, name := range sorted(h.open) {
		if cerr := h.open[name].close(err == nil); err == nil {
			err = cerr
		}
	}
	return n, err
}

type hive struct {
	dir   string
	table *Table
	opt   Options
	open  map[string]*hivePart
	parts map[string]int // of each partition so far
	tick  int64
}

type hivePart struct {
	path, temp string
	file       *os.File
	buffer     *bufio.Writer
	sink       Sink
	used       int64
}

func (h *hive) partition(row []Value, at, client, shards int) string {
	day := "__HIVE_DEFAULT_PARTITION__"
	if v := row[at]; !v.Null {
		day = time.Unix(0, v.Int).UTC().Format(time.DateOnly)
	}
	shard := uint64(0)
	if shards > 1 {
		var key []byte
		if client >= 0 {
			key = append(key, row[client].Str...)
		} else {
			for i, v := range row {
				key = append(appendText(key, h.table.Columns[i].Kind, v), 0)
			}
		}
		shard = dissect.Hash64(hiveSeed, key) % uint64(shards)
	}
	return fmt.Sprintf("dt=%s/shard=%04d", day, shard)
}

func (h *hive) write(name string, row []Value) error {
	h.tick++
	p := h.open[name]
	if p == nil {
		if len(h.open) >= hiveOpen {
			oldest := ""
			for _, k := range sorted(h.open) {
				if oldest == "" || h.open[k].used < h.open[oldest].used {
					oldest = k
				}
			}
			err := h.open[oldest].close(true)
			delete(h.open, oldest)
			if err != nil {
				return err
			}
		}
		var err error
		if p, err = h.begin(name); err != nil {
			return err
		}
		h.open[name] = p
	}
	p.used = h.tick
	return p.sink.Write(row)
}

func (h *hive) begin(name string) (*hivePart, error) {
	part := fmt.Sprintf("part-%04d.parquet", h.parts[name])
	h.parts[name]++
	dir := filepath.Join(h.dir, filepath.FromSlash(name))
	p := &hivePart{path: filepath.Join(dir, part), temp: filepath.Join(dir, "."+part+".tmp")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if _, err := os.Stat(p.path); !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is there already: name another directory, or remove that one", p.path)
	}
	var err error
	if p.file, err = os.Create(p.temp); err != nil {
		return nil, err
	}
	p.buffer = bufio.NewWriterSize(p.file, sinkBuffer)
	if p.sink, err = openParquet(p.buffer, h.table, h.opt); err != nil {
		p.file.Close()
		os.Remove(p.temp)
		return nil, err
	}
	return p, nil
}

// close ends a part; one that is not whole goes.
func (p *hivePart) close(whole bool) error {
	err := p.sink.Close()
	if ferr := p.buffer.Flush(); err == nil {
		err = ferr
	}
	if cerr := p.file.Close(); err == nil {
		err = cerr
	}
	if err != nil || !whole {
		os.Remove(p.temp)
		return err
	}
	return os.Rename(p.temp, p.path)
}

func sorted(m map[string]*hivePart) []string {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}
