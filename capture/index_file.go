package capture

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// indexForm is the form of a file of indices: a line that says so, the windows of all
// joints, from where each is read when it is needed, and a line for each capture.
const indexForm = 2

type indexHead struct {
	Form    int   `json:"squall_index"`
	Windows int64 `json:"windows"` // bytes of them
}

// NamedIndex is the index of a capture.
type NamedIndex struct {
	File  string `json:"capture_file"`
	Index *Index `json:"index"`
}

// WriteIndices writes indices for ReadIndices.
func WriteIndices(w io.Writer, list []NamedIndex) error {
	head := indexHead{Form: indexForm}
	placed := make([]NamedIndex, len(list))
	for i, n := range list {
		x := *n.Index
		x.Joints = slices.Clone(x.Joints)
		for k := range x.Joints {
			j := &x.Joints[k]
			if j.size > 0 {
				j.at = head.Windows
				head.Windows += int64(j.size)
			}
		}
		placed[i] = NamedIndex{n.File, &x}
	}
	lines := json.NewEncoder(w)
	if err := lines.Encode(head); err != nil {
		return err
	}
	for _, n := range list {
		for _, j := range n.Index.Joints {
			if err := n.Index.load(&j); err != nil {
				return err
			}
			if _, err := w.Write(j.window); err != nil {
				return err
			}
		}
	}
	for _, n := range placed {
		if err := lines.Encode(n); err != nil {
			return err
		}
	}
	return nil
}

// ReadIndices reads what WriteIndices wrote to a file, by the names of the captures.
// None, and no error, where there is no such file: nothing in them can be sought in.
func ReadIndices(path string) (map[string]*Index, error) {
	h, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer h.Close()
	line, err := bufio.NewReaderSize(io.LimitReader(h, 256), 256).ReadBytes('\n')
	var head indexHead
	if err != nil || json.Unmarshal(line, &head) != nil || head.Form != indexForm {
		return nil, fmt.Errorf("%s: not of the form of this squall (%d)", path, indexForm)
	}
	begin := int64(len(line))
	if _, err := h.Seek(begin+head.Windows, io.SeekStart); err != nil {
		return nil, fmt.Errorf("%s: it is damaged", path)
	}
	list := map[string]*Index{}
	for d := json.NewDecoder(h); ; {
		var n NamedIndex
		if err := d.Decode(&n); err == io.EOF {
			return list, nil
		} else if err != nil || n.Index == nil {
			return nil, fmt.Errorf("%s: it is damaged", path)
		}
		n.Index.kept = path
		for i := range n.Index.Joints {
			n.Index.Joints[i].at += begin
		}
		list[n.File] = n.Index
	}
}

// load reads the window of a joint, where that was kept.
func (x *Index) load(j *joint) error {
	if j.size == 0 || j.window != nil {
		return nil
	}
	h, err := os.Open(x.kept)
	if err != nil {
		return err
	}
	defer h.Close()
	if j.size < 0 || j.size > 2*reach {
		return fmt.Errorf("%s: it is damaged", x.kept)
	}
	j.window = make([]byte, j.size)
	if _, err := h.ReadAt(j.window, j.at); err != nil {
		return fmt.Errorf("%s: it is damaged", x.kept)
	}
	return nil
}

// MarshalJSON writes a joint as an array.
func (j joint) MarshalJSON() ([]byte, error) {
	if j.size == 0 {
		return fmt.Appendf(nil, "[%d,%d]", j.plain, j.packed), nil
	}
	return fmt.Appendf(nil, "[%d,%d,%d,%d,%d]", j.plain, j.packed, j.bits, j.at, j.size), nil
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (j *joint) UnmarshalJSON(text []byte) error {
	var v [5]int64
	err := json.Unmarshal(text, &v)
	*j = joint{plain: v[0], packed: v[1], bits: uint(v[2]) & 7, at: v[3], size: int(v[4])}
	return err
}
