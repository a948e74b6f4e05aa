package session

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"

	"mayfly/internal/core"
	"mayfly/internal/ledger"
)

// profileKey is where core's account keeps what the manifest said of a key of the profile when that was last set. A bot may set its
// name, its status and its picture itself: they stay until the manifest says something else than before.
func profileKey(key string) string { return "ui.mayfly." + key }

// profile is what others see of a bot: its name, its summary as the status text, its icon. What the manifest has changed is set; core
// sends it to each contact with the next message.
func (r *Runner) profile(ctx context.Context, c *coreSide, b ledger.Bot) error {
	icon, err := r.icon(b)
	if err != nil {
		return err
	}
	for _, item := range []struct {
		key, said string
		value     func() (string, error)
	}{
		{"displayname", b.Manifest.Name, func() (string, error) { return b.Manifest.Name, nil }},
		{"selfstatus", b.Manifest.Summary, func() (string, error) { return b.Manifest.Summary, nil }},
		{"selfavatar", digestOf(icon), func() (string, error) { return c.putIcon(b.Manifest.Icon, icon) }},
	} {
		before, err := c.client.GetConfig(ctx, c.account, profileKey(item.key))
		if err != nil {
			return err
		}
		if before == item.said {
			continue
		}
		value, err := item.value()
		if err != nil {
			return err
		}
		if err := r.setProfile(ctx, c, b, item.key, value); err != nil {
			return fmt.Errorf("%s: %w", item.key, err)
		}
		if err := c.client.SetConfig(ctx, c.account, profileKey(item.key), item.said); err != nil {
			return err
		}
	}
	return nil
}

// setProfile sets a key, or unsets it. A picture that core refuses, though it could be decoded when the bundle was checked, is left out.
func (r *Runner) setProfile(ctx context.Context, c *coreSide, b ledger.Bot, key, value string) error {
	var set *string
	if value != "" {
		set = &value
	}
	err := c.client.Call(ctx, "set_config", nil, c.account, key, set)
	var refused *core.Error
	if key == "selfavatar" && errors.As(err, &refused) {
		r.Log.Warn("core refuses the bot's icon", "bot", b.Address, "icon", b.Manifest.Icon, "err", err)
		return nil
	}
	return err
}

// putIcon hands core the icon, and returns the path that core has it under; empty without an icon.
func (c *coreSide) putIcon(name string, icon []byte) (string, error) {
	if len(icon) == 0 {
		return "", nil
	}
	target := filesDir + "/icon" + path.Ext(name)
	return target, c.box.PutFile(target, int64(len(icon)), bytes.NewReader(icon))
}

func digestOf(icon []byte) string {
	if len(icon) == 0 {
		return ""
	}
	sum := sha256.Sum256(icon)
	return hex.EncodeToString(sum[:])
}

// icon reads the picture from the bundle that is stored; nil without one.
func (r *Runner) icon(b ledger.Bot) ([]byte, error) {
	if b.Manifest.Icon == "" {
		return nil, nil
	}
	from, to := io.Pipe()
	defer from.Close() // ends the export, too
	go func() { to.CloseWithError(r.Storage.ExportBundle(b.Address, b.Digest, to)) }()
	files := tar.NewReader(from)
	for {
		h, err := files.Next()
		if err == io.EOF {
			return nil, nil // of a bundle that was checked when icons were not
		}
		if err != nil {
			return nil, fmt.Errorf("the icon in the bundle: %w", err)
		}
		if path.Clean(h.Name) == path.Clean(b.Manifest.Icon) {
			return io.ReadAll(files)
		}
	}
}
