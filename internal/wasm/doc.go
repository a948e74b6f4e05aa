// Package wasm checks, compiles and runs WebAssembly modules: bots of runtime = "wasm". A module is a command of WASI preview 1
// (target wasm32-wasip1) and runs on wazero. All of it happens in the sandbox's process, which is the boundary; the engine is not.
// The daemon contains none of it.
//
// It has two builtins of mayfly-sandbox, both under the seccomp profile "wasm". Neither needs /proc, /dev or /etc, opens a socket
// or starts a process.
//
// # wasm-compile
//
//	arguments   main [memory]: the module's path in the bundle; the bytes of memory that it may have, 4 GB if it is absent
//	/bundle     the author's files
//	/compiled   empty and writable; takes the machine code, in wazero's compilation cache, one file
//	stdout      one line: {"status":"OK"} or {"status":"RE","message":"main.wasm: …\nmain.wasm: …"}
//	exit code   0 for OK; 1 for RE; 70 for what is not the author's fault, with the reason on stderr and nothing on stdout
//
// It runs none of the module's code. A message has one line for each fault, at most 51, which says what to do about it. Faults are: the
// file is missing or larger than MaxModule; it is no module (but, say, a component of preview 2); it imports what
// wasi_snapshot_preview1 does not have, or with another signature; it exports no function _start without parameters and results;
// it has more than one memory, a shared one, one of 64-bit addresses, or one that begins larger than the limit; its code
// is not WebAssembly 2.0 (with SIMD; without threads, tail calls, exceptions and garbage collection); its machine code has no room in /compiled.
//
// # wasm
//
//	arguments     main memory, as above
//	/compiled     what wasm-compile left, sealed
//	stdin, stdout, stderr, environment   the module's are the process's
//	argv          main alone
//	preopened     /bundle and /attachments, which cannot be changed, /storage and /tmp
//	exit code     what the module gave to proc_exit, 255 if that was more; 134 after a trap; 70 when it was not run, with the reason on stderr
//
// After a trap stderr has "main.wasm: trap: unreachable" or the like, and the stack of the module's functions, 8 kB at most.
//
// The module's memory ends at the limit: memory.grow answers -1 there, which most languages tell as their own
// error. The engine, the module, its machine code and its stack (up to 100 MB, by deep recursion) are not in that limit but in the sandbox's.
//
// Clocks and random numbers are real. There are no sockets, and no end but the module's own or the host's SIGKILL.
//
// A path with which a module leaves its preopened directory by ".." is refused (EPERM). wazero follows symbolic links wherever they lead, so none may be
// there: a module cannot make any (EPERM by seccomp; absolute ones by wazero), nor hard links, and the stage unpacks none. What such
// a link would lead to is what the sandbox has besides: the module's own machine code.
//
// # The cache
//
// The cache's file is known by the module's bytes, wazero's version, the architecture and the CPU's features. What is missing, of
// another version or damaged is not mended, since /compiled is sealed: the module is compiled for this run alone, in
// the run's own time and memory, and stderr says "main.wasm: compiled anew, since it is not in the cache: …".
// What it costs, on amd64, for modules of the Go compiler of 2 to 21 MB: compiling takes 0.4 s of CPU and 20 MB of memory (with /compiled) for each
// MB, and the machine code is four times as large as the module. A run validates the whole module before it begins, some 15 ms
// for each MB, and holds, beside the module's own memory, its bytes and its machine code, both twice: in the sandbox's directories too.
//
// Machine code from /compiled is executed as it is. Whoever fills it decides what the process does within its sandbox.
package wasm
