package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version prints the versions of mayfly and of what it was tested with.
func version(args []string, std stdio) error {
	if err := parseFlags(newFlags("version", std), args); err != nil {
		return err
	}
	revision := "unknown revision"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	fmt.Fprintf(std.out, "mayfly %s\n%s %s/%s\ntested with deltachat-rpc-server %s\n", revision, runtime.Version(), runtime.GOOS, runtime.GOARCH, testedCore)
	return nil
}
