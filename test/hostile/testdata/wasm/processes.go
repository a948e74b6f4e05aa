// wall: processes
// tries: to start, to signal, to find a process
// ends: exit 0

package main

import (
	"os"
	"os/exec"
	"syscall"
)

func processes(string) {
	for _, name := range []string{"/bin/sh", "/proc/self/exe", "/bundle/main.wasm"} {
		refused("exec of "+name, exec.Command(name).Run())
	}
	refused("kill", syscall.Kill(1, syscall.SIGKILL))
	p, err := os.FindProcess(1)
	if err == nil {
		err = p.Kill()
	}
	refused("kill of process 1", err)
}
