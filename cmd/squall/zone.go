package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // machines that capture have no zones

	"github.com/spf13/cobra"
)

// zoneFlag is for verbs that print times for reading.
func (s *source) zoneFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.tz, "tz", "", "zone of times in text, Markdown and HTML, and of times without an offset in flags and in --events: a name as Europe/Berlin, or an offset as +01:00; UTC by default. CSV, JSON, Parquet, Arrow and file names are always UTC")
}

// readZone understands --tz; nil = UTC.
func (s *source) readZone() (err error) {
	if s.zone, err = parseZone(s.tz); err != nil {
		return exitError{exitUsage, err}
	}
	return nil
}

func parseZone(text string) (*time.Location, error) {
	if text == "" || strings.EqualFold(text, "utc") || text == "Z" {
		return nil, nil
	}
	if sign := text[0]; sign == '+' || sign == '-' {
		hours, minutes, _ := strings.Cut(text[1:], ":")
		if len(hours) == 4 && minutes == "" {
			hours, minutes = hours[:2], hours[2:]
		}
		if minutes == "" {
			minutes = "0"
		}
		h, err1 := strconv.ParseUint(hours, 10, 8)
		m, err2 := strconv.ParseUint(minutes, 10, 8)
		if err1 == nil && err2 == nil && h <= 14 && m < 60 {
			seconds := int(h*3600 + m*60)
			if sign == '-' {
				seconds = -seconds
			}
			return time.FixedZone(fmt.Sprintf("UTC%c%02d:%02d", sign, h, m), seconds), nil
		}
	} else if z, err := time.LoadLocation(text); err == nil {
		return z, nil
	}
	return nil, fmt.Errorf("--tz %q: want a name of the time zone database (Europe/Berlin), or an offset (+01:00)", text)
}

// at is the zone of what is read and printed.
func (s *source) at() *time.Location {
	if s.zone == nil {
		return time.UTC
	}
	return s.zone
}

// stamp prints a time for reading.
func (s *source) stamp(ns int64) string {
	return time.Unix(0, ns).In(s.at()).Format("2006-01-02T15:04:05.000000000Z07:00")
}
