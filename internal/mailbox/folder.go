package mailbox

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// Status is what a folder says when it is selected. When UIDValidity is not what it was, the UIDs seen before mean nothing.
type Status struct {
	UIDValidity uint32
	UIDNext     uint32 // 0 where the server does not say
	Messages    int
}

// Message is one mail of a folder, without its content.
type Message struct {
	UID  uint32
	Size int64 // RFC822.SIZE, bytes; some servers are wrong about it
	Seen bool
}

// Select opens a folder for the methods that follow. The error wraps ErrNoFolder where there is none.
func (c *Client) Select(ctx context.Context, folder string) (Status, error) {
	var status Status
	err := c.do(ctx, "select "+folder, c.timeout, answerBytes, func() error {
		name, err := c.name(folder)
		if err != nil {
			return err
		}
		select { // what arrived in the folder selected before is no news for this one
		case <-c.arrived:
		default:
		}
		data, err := c.imap.Select(name, nil).Wait()
		if err != nil {
			return c.missing(name, err)
		}
		status = Status{UIDValidity: data.UIDValidity, UIDNext: uint32(data.UIDNext), Messages: int(data.NumMessages)}
		return nil
	})
	return status, err
}

// missing finds out whether a command was refused because the folder is not there: servers before RFC 5530 do not say.
func (c *Client) missing(name string, err error) error {
	var refused *imap.Error
	if !errors.As(err, &refused) || refused.Type != imap.StatusResponseTypeNo {
		return err
	}
	if refused.Code != imap.ResponseCodeNonExistent {
		if there, listErr := c.exists(name); there || listErr != nil {
			return errors.Join(err, listErr)
		}
	}
	return fmt.Errorf("%w: %s", ErrNoFolder, refused.Text)
}

// List returns at most limit messages of the selected folder with UIDs above after, ascending.
func (c *Client) List(ctx context.Context, after uint32, limit int) ([]Message, error) {
	if after == ^uint32(0) {
		return nil, nil
	}
	var messages []Message
	err := c.do(ctx, "list", c.timeout, listBytes, func() error {
		uids, err := c.uidsAfter(after, limit)
		if err != nil || len(uids) == 0 {
			return err
		}
		options := &imap.FetchOptions{UID: true, RFC822Size: true, Flags: true}
		messages, err = collectMessages(c.imap.Fetch(imap.UIDSetNum(uids...), options))
		return err
	})
	return messages, err
}

// uidsAfter searches instead of fetching a range: the answer is small even where ten thousand mails wait.
func (c *Client) uidsAfter(after uint32, limit int) ([]imap.UID, error) {
	from := imap.UIDSet{imap.UIDRange{Start: imap.UID(after) + 1}} // n:*
	found, err := c.imap.UIDSearch(&imap.SearchCriteria{UID: []imap.UIDSet{from}}, nil).Wait()
	if err != nil {
		return nil, err
	}
	set, ok := found.All.(imap.UIDSet)
	if !ok {
		return nil, nil
	}
	var uids []imap.UID
	for _, r := range set { // ascending; "n:*" also finds the last mail if its UID is below n
		for uid := max(uint64(r.Start), uint64(after)+1); uid <= uint64(r.Stop); uid++ {
			if len(uids) == limit {
				return uids, nil
			}
			uids = append(uids, imap.UID(uid))
		}
	}
	return uids, nil
}

func collectMessages(cmd *imapclient.FetchCommand) ([]Message, error) {
	fetched, err := cmd.Collect()
	if err != nil && !expunged(err) {
		return nil, err
	}
	messages := make([]Message, 0, len(fetched))
	for _, m := range fetched {
		messages = append(messages, Message{UID: uint32(m.UID), Size: m.RFC822Size, Seen: slices.Contains(m.Flags, imap.FlagSeen)})
	}
	slices.SortFunc(messages, func(a, b Message) int { return cmp.Compare(a.UID, b.UID) })
	return messages, nil
}

// expunged reports whether a FETCH was refused because some of the mails are gone (RFC 5530).
func expunged(err error) bool {
	var refused *imap.Error
	return errors.As(err, &refused) && refused.Code == "EXPUNGEISSUED"
}

// Fetch returns a whole mail of the selected folder and leaves its flags as they are. The error wraps ErrVanished where
// there is no such mail, and ErrTooLarge where it has more than max bytes, of which no more than that are transferred.
func (c *Client) Fetch(ctx context.Context, uid uint32, max int64) ([]byte, error) {
	var mail []byte
	what := fmt.Sprintf("fetch mail %d", uid)
	err := c.do(ctx, what, longFactor*c.timeout, max+answerBytes, func() error {
		cmd := c.imap.Fetch(imap.UIDSetNum(imap.UID(uid)), &imap.FetchOptions{
			UID:        true,
			RFC822Size: true,
			BodySection: []*imap.FetchItemBodySection{{
				Peek:    true,
				Partial: &imap.SectionPartial{Size: max + 1},
			}},
		})
		var err error
		mail, err = readMail(cmd, max)
		if closeErr := cmd.Close(); closeErr != nil && !expunged(closeErr) {
			return closeErr
		}
		return err
	})
	return mail, err
}

func readMail(cmd *imapclient.FetchCommand, max int64) ([]byte, error) {
	mail, err := []byte(nil), error(ErrVanished)
	for message := cmd.Next(); message != nil; message = cmd.Next() {
		for item := message.Next(); item != nil; item = message.Next() {
			switch item := item.(type) {
			case imapclient.FetchItemDataRFC822Size:
				if item.Size > max {
					return nil, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrTooLarge, item.Size, max)
				}
			case imapclient.FetchItemDataBodySection:
				mail, err = readBody(item.Literal, max)
			}
		}
	}
	return mail, err
}

func readBody(r imap.LiteralReader, max int64) ([]byte, error) {
	if r == nil { // NIL: gone between the command and the answer
		return nil, ErrVanished
	}
	if r.Size() > max {
		return nil, fmt.Errorf("%w: at most %d bytes are taken", ErrTooLarge, max)
	}
	mail := make([]byte, r.Size())
	_, err := io.ReadFull(r, mail)
	return mail, err
}

// Delete removes mails of the selected folder for good. Mails that are gone already are no error. Where the server has no
// UIDPLUS (RFC 4315), other mails marked as deleted go with them.
func (c *Client) Delete(ctx context.Context, uids ...uint32) error {
	if len(uids) == 0 {
		return nil
	}
	var set imap.UIDSet
	for _, uid := range uids {
		set.AddNum(imap.UID(uid))
	}
	return c.do(ctx, "delete", c.timeout, answerBytes+int64(len(uids))*64, func() error {
		flags := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}
		if err := c.imap.Store(set, flags, nil).Close(); err != nil && !expunged(err) {
			return err
		}
		if caps := c.imap.Caps(); caps.Has(imap.CapUIDPlus) || caps.Has(imap.CapIMAP4rev2) {
			return c.imap.UIDExpunge(set).Close()
		}
		return c.imap.Expunge().Close()
	})
}

// Append puts a mail into a folder, unread, and makes the folder where it is missing. It need not be the selected one. Where the
// server refuses the mail, since the account is full, the Client is closed with it (go-imap beta.8 does so).
func (c *Client) Append(ctx context.Context, folder string, mail []byte) error {
	return c.do(ctx, "append to "+folder, longFactor*c.timeout, answerBytes, func() error {
		name, err := c.name(folder)
		if err != nil {
			return err
		}
		if err := c.ensure(name); err != nil {
			return err
		}
		cmd := c.imap.Append(name, int64(len(mail)), nil)
		_, err = io.Copy(cmd, bytes.NewReader(mail))
		if closeErr := cmd.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return err
		}
		_, err = cmd.Wait()
		return err
	})
}

// Create makes a folder. One that is there already is no error.
func (c *Client) Create(ctx context.Context, folder string) error {
	return c.do(ctx, "create "+folder, c.timeout, answerBytes, func() error {
		name, err := c.name(folder)
		if err != nil {
			return err
		}
		return c.ensure(name)
	})
}

// Exists reports whether there is such a folder.
func (c *Client) Exists(ctx context.Context, folder string) (bool, error) {
	var there bool
	err := c.do(ctx, "look for "+folder, c.timeout, answerBytes, func() error {
		name, err := c.name(folder)
		if err != nil {
			return err
		}
		there, err = c.exists(name)
		return err
	})
	return there, err
}

// Folders returns the names of all folders of the account that can be selected. An answer that the server did not finish, or
// refused, is an error, never a shorter list.
func (c *Client) Folders(ctx context.Context) ([]string, error) {
	var names []string
	err := c.do(ctx, "list the folders", c.timeout, foldersBytes, func() error {
		found, err := c.imap.List("", "*", nil).Collect()
		if err != nil {
			return err
		}
		for _, data := range found {
			if slices.Contains(data.Attrs, imap.MailboxAttrNonExistent) || slices.Contains(data.Attrs, imap.MailboxAttrNoSelect) {
				continue
			}
			name := data.Mailbox
			if data.Delim != 0 {
				name = strings.ReplaceAll(name, string(data.Delim), "/")
			}
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// UIDValidity asks for a folder's UIDVALIDITY and leaves selected what is selected. The error wraps ErrNoFolder where there
// is no such folder.
func (c *Client) UIDValidity(ctx context.Context, folder string) (uint32, error) {
	var validity uint32
	err := c.do(ctx, "look at "+folder, c.timeout, answerBytes, func() error {
		name, err := c.name(folder)
		if err != nil {
			return err
		}
		data, err := c.imap.Status(name, &imap.StatusOptions{UIDValidity: true}).Wait()
		if err != nil {
			return c.missing(name, err)
		}
		validity = data.UIDValidity
		return nil
	})
	return validity, err
}

func (c *Client) exists(name string) (bool, error) {
	found, err := c.imap.List("", name, nil).Collect()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(found, func(data *imap.ListData) bool {
		return strings.EqualFold(data.Mailbox, name) &&
			!slices.Contains(data.Attrs, imap.MailboxAttrNonExistent) && !slices.Contains(data.Attrs, imap.MailboxAttrNoSelect)
	}), nil
}

// ensure asks first, since a server that refuses an APPEND for want of a folder makes the library drop the connection.
func (c *Client) ensure(name string) error {
	there, err := c.exists(name)
	if there || err != nil {
		return err
	}
	var refused *imap.Error
	err = c.imap.Create(name, nil).Wait()
	if errors.As(err, &refused) && refused.Code == imap.ResponseCodeAlreadyExists {
		return nil
	}
	return err
}
