package worker

import (
	"testing"
)

func TestReplyByReturn(t *testing.T) {
	h := newHost(t, handler("return `you said ${msg.text}`"), "hi").run().wantOK()
	h.wantCalls(`send_msg[1,10,{"text":"you said hi"}]`)
	t.Log(h.took, h.lines)
}
