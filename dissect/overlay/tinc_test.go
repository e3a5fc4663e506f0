package overlay

import (
	"strings"
	"testing"

	"squall/dissect"
)

func TestTinc(t *testing.T) {
	key := "1 429 672 0 0 " + strings.Repeat("AB", 512) + "\n"
	challenge, reply, ack := strings.Repeat("c", 1027), strings.Repeat("r", tincReply), strings.Repeat("a", 24)
	converse(t, tinc{}, dissect.ProtoTCP, 655, []line{
		{data: "0 think 17\n", kind: dissect.KindRequest, op: "ID", id: "think", version: "17", role: dissect.RolePeer},
		{node: true, data: "0 iniz 17\n", kind: dissect.KindProgress, same: 1},
		{data: key, kind: dissect.KindData, op: "METAKEY"},
		{node: true, data: key, kind: dissect.KindProgress},
		{data: challenge, kind: dissect.KindData},
		{node: true, data: challenge, kind: dissect.KindData},
		{data: reply, kind: dissect.KindData},
		{node: true, data: reply, kind: dissect.KindData},
		{node: true, data: ack, kind: dissect.KindAccept, op: "ACK", same: 1},
	})
	converse(t, tinc{}, dissect.ProtoTCP, 655, []line{
		{data: "0 think 17.7\n", kind: dissect.KindRequest, version: "17.7"},
		{node: true, data: "0 iniz 17.7\n", kind: dissect.KindProgress},
		{node: true, data: strings.Repeat("k", tincSPTPS), kind: dissect.KindData},
		{node: true, data: ack, kind: dissect.KindAccept},
	})
	converse(t, tinc{}, dissect.ProtoTCP, 655, []line{
		{data: "0 think 17\n", kind: dissect.KindRequest},
		{node: true, data: "0 iniz 17\n", kind: dissect.KindProgress},
		{node: true, data: "7\n", kind: dissect.KindRefuse, op: "TERMREQ"},
	})
	strangers(t, tinc{}, dissect.ProtoTCP, 655, "0 think 17", "0 th-nk 17\n", "0 think 9\n", "0 think 17.x\n", "1 think 17\n", "0  17\n")
}

func FuzzTinc(f *testing.F) {
	fuzzProtocol(f, tinc{}, 655, "0 think 17\n", "1 429 672 0 0 ABAB\n", "7\n")
}
