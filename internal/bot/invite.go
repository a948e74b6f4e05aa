package bot

import (
	"net/url"
	"strings"
)

// ReadInvite takes an invite link apart, https://i.delta.chat/#FINGERPRINT&field=value&…; false where it is none. The fields are foreign
// and may be missing.
func ReadInvite(link string) (Fingerprint, url.Values, bool) {
	_, fragment, ok := strings.Cut(link, "https://i.delta.chat/#")
	if !ok {
		return "", nil, false
	}
	fingerprint, rest, _ := strings.Cut(fragment, "&")
	fields, err := url.ParseQuery(rest)
	if err != nil {
		fields = nil
	}
	return Fingerprint(strings.ToUpper(fingerprint)), fields, true
}

// JoinableInvite returns the inviter and the token of an invite that can be accepted without a word in cleartext (Secure-Join v3), and
// which is to a contact, not to a group or channel; false for any other.
func JoinableInvite(link string) (inviter Fingerprint, token string, ok bool) {
	inviter, fields, ok := ReadInvite(link)
	token = fields.Get("s")
	return inviter, token, ok && fields.Get("v") == "3" && token != "" && !fields.Has("g") && !fields.Has("x") && !fields.Has("b")
}
