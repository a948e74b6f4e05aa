package gate

import (
	"strings"

	"mayfly/internal/bot"
)

const maxFailed = 100 // recipients of one report

// checkCleartext lets the old handshake with a valid invite number pass, and reads delivery reports.
func checkCleartext(outer *entity, keys *Keys, bounds Bounds) Verdict {
	v := Verdict{Kind: Handshake, From: claimedFrom("", outer.header)}
	if v.Step = handshakeStep(outer, bounds); v.Step != "" {
		return checkInvite(v, outer.header.get("secure-join-invitenumber"), keys)
	}
	if outer.mediaType == "multipart/report" && strings.EqualFold(outer.params["report-type"], "delivery-status") && fromSystem(outer.header) {
		return checkReport(outer, bounds)
	}
	r := refused(refuse(Cleartext, "the content type is %s", outer.mediaType))
	r.From = v.From
	return r
}

func checkInvite(v Verdict, invite string, keys *Keys) Verdict {
	switch {
	case invite != "" && keys.invites[invite]:
		return v
	case invite != "" && !keys.readable:
		v.Uncertain = true
		return v
	}
	r := refused(refuse(BadInvite, "%s without a valid invite number", v.Step))
	r.From = v.From
	return r
}

// fromSystem says whether a mail server claims to be the sender, with the null reverse path where the delivery kept it.
func fromSystem(h header) bool {
	if path := h.all("return-path"); len(path) > 0 && addressOf(path[len(path)-1]) != "" {
		return false
	}
	local, _, _ := strings.Cut(strings.ToLower(addressOf(h.get("from"))), "@")
	return local == "mailer-daemon" || local == "postmaster"
}

// checkReport reads a delivery status notification (RFC 3464).
func checkReport(outer *entity, bounds Bounds) Verdict {
	parts, err := outer.parts(bounds)
	if err != nil {
		return refused(err)
	}
	v := Verdict{Kind: Bounce, From: claimedFrom("", outer.header)}
	for _, part := range parts {
		body, err := part.decoded()
		if err != nil {
			return refused(err)
		}
		switch part.mediaType {
		case "message/delivery-status", "message/global-delivery-status":
			v.FailedRecipients, err = failedRecipients(body, bounds)
		case "message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers":
			v.OriginalID, err = originalID(body, bounds)
		}
		if err != nil {
			return refused(err)
		}
	}
	return v
}

// failedRecipients reads the groups of fields of a delivery-status part: one for the report, then one for each recipient.
func failedRecipients(body []byte, bounds Bounds) ([]bot.Address, error) {
	var failed []bot.Address
	r := lineReader(body)
	for left := bounds.Header; ; {
		group, n, err := readHeader(r, left)
		if err != nil {
			return nil, err
		}
		if n == 0 || len(failed) == maxFailed {
			return failed, nil
		}
		left -= n
		_, recipient, _ := strings.Cut(group.get("final-recipient"), ";")
		address, err := bot.ParseAddress(addressOf(recipient))
		if err == nil && strings.EqualFold(group.get("action"), "failed") && strings.HasPrefix(group.get("status"), "5") {
			failed = append(failed, address)
		}
	}
}

func originalID(body []byte, bounds Bounds) (string, error) {
	h, _, err := readHeader(lineReader(body), bounds.Header)
	if err != nil {
		return "", err
	}
	return bareID(h.get("message-id")), nil
}
