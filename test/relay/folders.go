package relay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// folder is one that the servers want to find.
type folder struct {
	path         string // below the relay's folder
	owner, group string
	mode         fs.FileMode
}

// folders lists those of the relay, parents first. Those of Postfix's queue are as `postfix check` makes them, which takes
// three seconds.
func folders() []folder {
	list := []folder{
		{"tls", "root", "root", 0o755},
		{"mail", mailUser, mailGroup, 0o700},
		{"wake", "root", mailGroup, 0o750},
		{"dovecot", "root", "root", 0o755},
		{"dovecot/run", "root", "root", 0o755},
		{"postfix", "root", "root", 0o755},
		{"postfix/etc", "root", "root", 0o755},
		{"postfix/data", "postfix", "root", 0o700},
		{"postfix/queue", "root", "root", 0o755},
		{"postfix/queue/pid", "root", "root", 0o755},
		{"postfix/queue/public", "postfix", "postdrop", 0o710},
		{"postfix/queue/maildrop", "postfix", "postdrop", 0o730},
	}
	for _, name := range []string{
		"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace",
	} {
		list = append(list, folder{"postfix/queue/" + name, "postfix", "root", 0o700})
	}
	return list
}

// layOut makes the folders.
func (r *Relay) layOut() error {
	if err := os.Chmod(r.dir, 0o755); err != nil {
		return err
	}
	for _, f := range folders() {
		if err := f.make(r.dir); err != nil {
			return err
		}
	}
	r.Hook = filepath.Join(r.dir, "wake", "socket")
	var err error
	r.HookGroup, err = gidOf(mailGroup)
	return err
}

func (f folder) make(dir string) error {
	u, err := user.Lookup(f.owner)
	if err != nil {
		return fmt.Errorf("%w: run scripts/setup-relay", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := gidOf(f.group)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, f.path)
	return errors.Join(os.Mkdir(path, f.mode), os.Chmod(path, f.mode), os.Chown(path, uid, gid))
}

func gidOf(name string) (int, error) {
	group, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("%w: run scripts/setup-relay", err)
	}
	return strconv.Atoi(group.Gid)
}
