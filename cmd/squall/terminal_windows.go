package main

import (
	"golang.org/x/sys/windows"
)

// terminal gives the columns and rows of a console, and has it understand escape
// sequences; 0 = w is none, or one that cannot.
func terminal(w any) (columns, rows int) {
	f, ok := w.(file)
	if !ok {
		return 0, 0
	}
	console := windows.Handle(f.Fd())
	var mode uint32
	var info windows.ConsoleScreenBufferInfo
	if windows.GetConsoleMode(console, &mode) != nil || windows.GetConsoleScreenBufferInfo(console, &info) != nil ||
		windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) != nil {
		return 0, 0
	}
	return max(int(info.Window.Right-info.Window.Left)+1, 1), int(info.Window.Bottom-info.Window.Top) + 1
}
