package inject

import "golang.org/x/sys/unix"

// older are the calls that newer machines have no numbers for.
var older = map[int]kind{
	unix.SYS_OPEN:     {name: "open", where: byName, flags: 1},
	unix.SYS_MKDIR:    {name: "mkdir", effect: Space, where: byName},
	unix.SYS_RMDIR:    {name: "rmdir", effect: Change, where: byName},
	unix.SYS_UNLINK:   {name: "unlink", effect: Change, where: byName},
	unix.SYS_RENAME:   {name: "rename", effect: Space, where: byName, at: 1},
	unix.SYS_LINK:     {name: "link", effect: Space, where: byName, at: 1},
	unix.SYS_SYMLINK:  {name: "symlink", effect: Space, where: byName, at: 1},
	unix.SYS_TRUNCATE: {name: "truncate", effect: Change, where: byName},
	unix.SYS_CHMOD:    {name: "chmod", effect: Change, where: byName},
	unix.SYS_CREAT:    {name: "creat", effect: Space, where: byName},
}
