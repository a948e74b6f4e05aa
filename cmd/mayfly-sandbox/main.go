// The Go runtime would keep the host's cgroup files open, to follow the CPU quota, and the programs would hold them.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command mayfly-sandbox makes sandboxes for mayfly, and is what runs in them. It has four verbs:
//
//	broker   the service: takes Specs on a unix socket and makes a sandbox for each (package broker)
//	stage    process 1 of a sandbox, started by the broker (package stage)
//	launch   a program of a sandbox, started by the stage
//	enter    a program that bubblewrap starts within a sandbox
//
// The programs that it contains itself, started by a Spec's Builtin, are in builtins.
package main

import (
	"fmt"
	"os"

	"mayfly/internal/accountreader"
	"mayfly/internal/broker"
	"mayfly/internal/stage"
	"mayfly/internal/wasm"
	"mayfly/internal/worker"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 0 {
		return usage()
	}
	switch args[0] {
	case "broker":
		return broker.Main(args[1:], os.Stderr)
	case "stage":
		return stage.Main(os.Stdin, os.Stderr)
	case "launch":
		return stage.Launch(args[1:], builtins(), os.Stdin, os.Stdout, os.Stderr)
	case "enter":
		return stage.Enter(args[1:], os.Stderr)
	}
	return usage()
}

func usage() int {
	fmt.Fprintln(os.Stderr, "usage: mayfly-sandbox broker -allow-uid UID [-lifeline] [-cgroups JSON]   (started by mayfly or by its socket unit)")
	return 2
}

// builtins are the programs that a sandbox can run without a binary of its own.
func builtins() map[string]stage.Builtin {
	return map[string]stage.Builtin{
		"worker":         worker.Main,
		"wasm-compile":   stage.Unprepared(wasm.CompileMain),
		"wasm":           stage.Unprepared(wasm.Main),
		"account-reader": stage.Unprepared(accountreader.Main),
		"probe":          stage.Unprepared(stage.Probe),
	}
}
