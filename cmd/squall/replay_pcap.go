package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"squall/capture"
)

// tapRun captures what passes between this machine and the targets, and the
// errors about it, until stop is called. It must be begun as root (CAP_NET_RAW).
func tapRun(path string, targets []netip.AddrPort, note string) (stop func() error, err error) {
	var terms []string
	where := "lo"
	for _, t := range targets {
		terms = append(terms, fmt.Sprintf("host %v and port %d", t.Addr(), t.Port()))
		if !t.Addr().IsLoopback() {
			where = "any"
		}
	}
	filter := "(" + strings.Join(terms, ") or (") + ") or icmp or icmp6"
	expr, err := capture.ParseFilter(filter)
	if err != nil {
		return nil, err
	}
	src, err := capture.OpenLive(capture.LiveOptions{Interfaces: []string{where}, Filter: expr})
	if err != nil {
		return nil, fmt.Errorf("--pcap: %w", err)
	}
	var taps []capture.WriterInterface
	for _, t := range src.Taps() {
		taps = append(taps, capture.WriterInterface{Name: t.Name, Description: t.Kind, Link: t.Link, Filter: filter})
	}
	w, err := capture.Create(path, capture.WriterOptions{Application: "squall " + version(), Comment: note, Interfaces: taps})
	if err != nil {
		src.Close()
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- drain(src, w) }()
	return func() error {
		time.Sleep(tapLinger)
		src.Stop()
		err := <-done
		lost := total(src.Statistics()).OSDropped
		if e := errors.Join(w.Close(), src.Close()); err == nil {
			err = e
		}
		if err == nil && lost > 0 {
			err = fmt.Errorf("%s: the kernel dropped %d packets of it", path, lost)
		}
		return err
	}, nil
}

// tapLinger lets the last packets arrive.
const tapLinger = 200 * time.Millisecond

func drain(src *capture.Live, w *capture.Writer) error {
	var failed error // the rest is read all the same: the kernel's ring is full otherwise
	err := capture.Each(context.Background(), src, func(b *capture.Batch) error {
		for i := range b.Packets {
			if failed == nil {
				failed = w.WritePacket(&b.Packets[i], "")
			}
		}
		return nil
	})
	return cmp.Or(err, failed)
}
