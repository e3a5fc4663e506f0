package frozen_test

import (
	"bufio"
	"bytes"
	"errors"
	"reflect"
	"sync"
	"testing"

	"squall/dissect/frozen"
)

type leaf struct {
	a uint8
	b int64
}

type tree struct {
	mu     sync.Mutex
	do     func()
	any    error
	given  string `frozen:"-"`
	text   string
	plain  [3]leaf
	list   []leaf
	texts  []string
	none   []int
	empty  []int
	byName map[string]*leaf
	last   *leaf // one of byName
	shared *leaf
	pages  []*[4]leaf
	self   *tree
}

// TestFrozen: what is read is what was written, what was shared is shared, and what
// belongs to the reader is left to it.
func TestFrozen(t *testing.T) {
	common := &leaf{9, -9}
	x := &leaf{1, 2}
	was := &tree{given: "was", text: "text", plain: [3]leaf{{1, 1}, {}, {3, 3}}, list: []leaf{{4, 4}, {5, -5}}, texts: []string{"a", "", "c"},
		empty: []int{}, byName: map[string]*leaf{"x": x, "y": {7, 8}}, last: x, shared: common, pages: []*[4]leaf{{{1, 2}}, nil}}
	was.self = was
	other := &tree{shared: common}
	var b bytes.Buffer
	was.mu.Lock()
	if err := frozen.Write(&b, &was, other); err != nil {
		t.Fatal(err)
	}
	was.mu.Unlock()
	b.WriteString("rest")
	called := false
	mine := &leaf{} // both point at it from the begin
	now := &tree{given: "now", do: func() { called = true }, any: errors.New("mine"), shared: mine, none: []int{1}, texts: []string{"old"}}
	next := &tree{shared: mine}
	in := bufio.NewReader(bytes.NewReader(b.Bytes()))
	if err := frozen.Read(in, &now, next); err != nil {
		t.Fatal(err)
	}
	if rest, _ := in.Peek(9); string(rest) != "rest" {
		t.Errorf("%q is left", rest)
	}
	now.do()
	if !now.mu.TryLock() || !called || now.any == nil || now.given != "now" {
		t.Error("what is the reader's own was not left to it")
	}
	if now.last != now.byName["x"] || now.shared != mine || next.shared != mine || *mine != *common || now.self != now {
		t.Error("what was shared is not")
	}
	if now.none != nil || now.empty == nil || len(now.empty) != 0 {
		t.Errorf("%v %v", now.none, now.empty)
	}
	now.mu.Unlock()
	now.do, now.any, now.given, now.self, was.self = nil, nil, "was", nil, nil
	if !reflect.DeepEqual(was, now) {
		t.Errorf("%+v, want %+v", now, was)
	}
	for n := range b.Len() - 4 {
		if err := frozen.Read(bufio.NewReader(bytes.NewReader(b.Bytes()[:n])), &now, next); err == nil {
			t.Fatalf("%d bytes of %d are enough", n, b.Len())
		}
	}
	if err := frozen.Read(bufio.NewReader(&b), &struct{ text string }{}); !errors.Is(err, frozen.ErrShape) {
		t.Errorf("another type: %v", err)
	}
}
