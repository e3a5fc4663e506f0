// Package frozen writes the state of a run to a stream and reads it back into
// another run of the same program: all fields, those that are not exported, too,
// and pointers so that what was shared is shared again.
//
// What belongs to the run and not to its state stays as it is in the value that is
// read into: functions, channels, interfaces, locks, files, and fields with the tag
// `frozen:"-"`.
package frozen

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"reflect"
	"sync"
	"unsafe"
)

// ErrShape says that a stream was written by a program whose types are others.
var ErrShape = errors.New("it was kept by another version of squall")

// Write writes what the values point at. Nothing may change them meanwhile.
func Write(w io.Writer, values ...any) error {
	e := encoder{w: bufio.NewWriterSize(w, 1<<16), known: map[place]uint64{}}
	e.number(shapeOf(values))
	for _, v := range values {
		e.value(reflect.ValueOf(v).Elem())
	}
	return errors.Join(e.err, e.w.Flush())
}

// Read is the inverse of Write, into values made the same way. It trusts the
// stream: a checksum has to have been looked at. What follows in r is left there.
func Read(r *bufio.Reader, values ...any) error {
	d := decoder{r: r}
	if shape := d.number(); d.err == nil && shape != shapeOf(values) {
		return ErrShape
	}
	for _, v := range values {
		d.value(reflect.ValueOf(v).Elem())
	}
	if d.err == io.EOF {
		d.err = io.ErrUnexpectedEOF
	}
	return d.err
}

// left reports what belongs to a run.
func left(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Func, reflect.Chan, reflect.Interface, reflect.UnsafePointer:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return left(t.Elem())
	}
	return t.PkgPath() == "sync" || t.PkgPath() == "os"
}

func kept(f *reflect.StructField) bool { return f.Tag.Get("frozen") != "-" && !left(f.Type) }

// plain reports values that are their bytes.
func plain(t reflect.Type) bool {
	known, ok := plains.Load(t)
	if !ok {
		known = plainly(t)
		plains.Store(t, known)
	}
	return known.(bool)
}

var plains sync.Map // of reflect.Type: asked for each value

func plainly(t reflect.Type) bool {
	switch k := t.Kind(); {
	case k >= reflect.Bool && k <= reflect.Complex128:
		return true
	case k == reflect.Array:
		return plain(t.Elem())
	case k == reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); !kept(&f) || !plain(f.Type) {
				return false
			}
		}
		return !left(t)
	}
	return false
}

func bytesOf(v reflect.Value) []byte {
	return unsafe.Slice((*byte)(v.Addr().UnsafePointer()), v.Type().Size())
}

// field gives access to a field, exported or not.
func field(v reflect.Value, i int) reflect.Value {
	f := v.Field(i)
	return reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem()
}

// elements are those of a slice as bytes, where they are plain.
func elements(v reflect.Value) []byte {
	if v.Len() == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(v.UnsafePointer()), v.Len()*int(v.Type().Elem().Size()))
}

// shapeOf is a hash of all types that are reached.
func shapeOf(values []any) uint64 {
	h := fnv.New64a()
	seen := map[reflect.Type]bool{}
	for _, v := range values {
		shape(h, seen, reflect.TypeOf(v))
	}
	return h.Sum64()
}

func shape(h hash.Hash64, seen map[reflect.Type]bool, t reflect.Type) {
	fmt.Fprintln(h, t, t.Kind(), t.Size())
	if seen[t] || left(t) {
		return
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); kept(&f) {
				fmt.Fprintln(h, f.Name, f.Offset)
				shape(h, seen, f.Type)
			}
		}
	case reflect.Map:
		shape(h, seen, t.Key())
		shape(h, seen, t.Elem())
	case reflect.Pointer, reflect.Slice, reflect.Array:
		shape(h, seen, t.Elem())
	}
}

// place is what a pointer points at; a struct and its first field lie at one address.
type place struct {
	at unsafe.Pointer
	of reflect.Type
}

type encoder struct {
	w     *bufio.Writer
	known map[place]uint64
	err   error
}

func (e *encoder) bytes(b []byte) {
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
}

func (e *encoder) number(n uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	e.bytes(b[:])
}

func (e *encoder) value(v reflect.Value) {
	t := v.Type()
	if plain(t) {
		e.bytes(bytesOf(v))
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); kept(&f) {
				e.value(field(v, i))
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			e.value(v.Index(i))
		}
	case reflect.String:
		e.number(uint64(v.Len()))
		e.bytes([]byte(v.String()))
	case reflect.Slice:
		if v.IsNil() {
			e.number(0)
			return
		}
		e.number(uint64(v.Len()) + 1)
		if plain(t.Elem()) {
			e.bytes(elements(v))
			return
		}
		for i := range v.Len() {
			e.value(v.Index(i))
		}
	case reflect.Map:
		if v.IsNil() {
			e.number(0)
			return
		}
		e.number(uint64(v.Len()) + 1)
		for it := v.MapRange(); it.Next(); {
			for _, x := range []reflect.Value{it.Key(), it.Value()} {
				at := reflect.New(x.Type()).Elem() // what a map holds has no address
				at.Set(x)
				e.value(at)
			}
		}
	case reflect.Pointer:
		if v.IsNil() {
			e.number(0)
			return
		}
		to := place{v.UnsafePointer(), t}
		id, ok := e.known[to]
		if !ok {
			id = uint64(len(e.known)) + 1
			e.known[to] = id
		}
		if e.number(id); !ok {
			e.value(v.Elem())
		}
	default:
		e.err = fmt.Errorf("a %v cannot be kept", t)
	}
}

type decoder struct {
	r     *bufio.Reader
	known []reflect.Value
	err   error
}

func (d *decoder) bytes(b []byte) {
	if d.err == nil {
		_, d.err = io.ReadFull(d.r, b)
	}
}

func (d *decoder) number() uint64 {
	var b [8]byte
	d.bytes(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

func (d *decoder) value(v reflect.Value) {
	t := v.Type()
	if d.err != nil {
		return
	}
	if plain(t) {
		d.bytes(bytesOf(v))
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); kept(&f) {
				d.value(field(v, i))
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			d.value(v.Index(i))
		}
	case reflect.String:
		b := make([]byte, d.number())
		d.bytes(b)
		v.SetString(string(b))
	case reflect.Slice:
		n := int(d.number())
		if n == 0 || d.err != nil {
			v.SetZero()
			return
		}
		v.Set(reflect.MakeSlice(t, n-1, n-1))
		if plain(t.Elem()) {
			d.bytes(elements(v))
			return
		}
		for i := range n - 1 {
			d.value(v.Index(i))
		}
	case reflect.Map:
		n := int(d.number())
		if n == 0 || d.err != nil {
			v.SetZero()
			return
		}
		v.Set(reflect.MakeMapWithSize(t, n-1))
		for range n - 1 {
			key, elem := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
			d.value(key)
			d.value(elem)
			if d.err != nil {
				return
			}
			v.SetMapIndex(key, elem)
		}
	case reflect.Pointer:
		id := d.number()
		switch {
		case d.err != nil:
		case id == 0:
			v.SetZero()
		case id <= uint64(len(d.known)):
			v.Set(d.known[id-1].Convert(t))
		default:
			if v.IsNil() { // else it is what others point at, too
				v.Set(reflect.New(t.Elem()))
			}
			to := reflect.New(t).Elem()
			to.Set(v)
			d.known = append(d.known, to)
			d.value(to.Elem())
		}
	}
}
