// Package takedown lets the hostile suite (test/hostile) take down one wall of the sandbox, to see that its tests then fail. A test
// that cannot fail shows nothing.
//
// It exists in builds with the tag "takedown" alone, where the linker says which wall is down:
//
//	go build -tags takedown -ldflags '-X mayfly/internal/stage/takedown.down=memory' ./cmd/mayfly-sandbox
//
// In every other build Down is a constant false, the compiler drops what depends on it, and no switch is in the binary; the suite
// tests that, too.
package takedown

// Wall is the name of one.
type Wall string

// The walls. Each is asked about where it is put up.
const (
	UID           Wall = "uid"             // the broker refuses uid 0
	PIDNamespace  Wall = "pid-namespace"   //
	NetNamespace  Wall = "net-namespace"   //
	IPCNamespace  Wall = "ipc-namespace"   //
	UTSNamespace  Wall = "uts-namespace"   //
	CgroupNS      Wall = "cgroup-ns"       //
	EmptyRoot     Wall = "empty-root"      // the host's files are not there
	ReadOnlyRoot  Wall = "read-only-root"  // nor can one be made
	MountFlags    Wall = "mount-flags"     // noexec, nosuid, nodev
	Sealed        Wall = "sealed"          // directories that programs may not write
	Capabilities  Wall = "capabilities"    // none, in no set
	SeccompWorker Wall = "seccomp-worker"  // the profiles
	SeccompCore   Wall = "seccomp-core"    //
	SeccompNative Wall = "seccomp-native"  //
	SeccompWASM   Wall = "seccomp-wasm"    //
	Landlock      Wall = "landlock"        //
	Descriptors   Wall = "descriptors"     // programs hold three pipes
	Undumpable    Wall = "undumpable"      // nobody reads a builtin's memory
	Nofile        Wall = "rlimit-nofile"   //
	Fsize         Wall = "rlimit-fsize"    //
	Core          Wall = "rlimit-core"     //
	Memlock       Wall = "rlimit-memlock"  //
	Msgqueue      Wall = "rlimit-msgqueue" //
	DirSize       Wall = "dir-size"        // of a directory, in bytes
	DirInodes     Wall = "dir-inodes"      // and in files
	Memory        Wall = "memory"          // the cgroup's limits
	Pids          Wall = "pids"            //
	CPU           Wall = "cpu"             // the broker's look at the CPU time
	WallClock     Wall = "wall-clock"      // the stage's and the broker's timers
	Pack          Wall = "pack"            // what may leave a directory: files and directories
	Log           Wall = "log"             // how much a script may log
)
