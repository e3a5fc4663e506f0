package overlay

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"squall/dissect"
)

// TestQUICKeys: RFC 9001 appendix A.1, RFC 9369 appendix A.1.
func TestQUICKeys(t *testing.T) {
	id := []byte(unhex("8394c8f03e515708"))
	for _, v := range []struct {
		version     uint32
		side        string
		key, iv, hp string
	}{
		{quicV1, "client in", "1f369613dd76d5467730efcbe3b1a22d", "fa044b2f42a3fd3b46fb255c", "9f50449e04a0e810283a1e9933adedd2"},
		{quicV1, "server in", "cf3a5331653c364c88f0f379b6067e37", "0ac1493ca1905853b0bba03e", "c206b8d9b9f0f37644430b490eeaa314"},
		{quicV2, "client in", "8b1a0bc121284290a29e0971b5cd045d", "91f73e2351d8fa91660e909f", "45b95e15235d6f45a6b19cbcb0294ba9"},
		// draft-ietf-quic-tls-25, appendix A.1
		// as they open captured packets, which tshark reads the same
		{quicQ050, "client in", "348cb426373281cfaec63f5b609350e7", "4b9cf5c4a378544aed414625", "609d47aa6b7fab4705068781528143f7"},
		{quicT050, "client in", "80ab8e0313d2c851aaff5405824a916a", "aedd2abe20b9eff2116e4429", "d3a731204b1c81e9644f91bd062633a9"},
		{quicT051, "client in", "e66b805440a16d39f1889b2726d1cc5c", "efdd37eda34f2f7080bb140c", "34ebf45dc367d3502a9fe09cfd3fd9f6"},
		{quicDraft22 + 3, "client in", "af7fd7efebd21878ff66811248983694", "8681359410a70bb9c92f0420", "a980b8b4fb7d9fbc13e814c23164253d"},
	} {
		key, iv, hp := quicKeys(v.version, id, v.side)
		if hex.EncodeToString(key) != v.key || hex.EncodeToString(iv) != v.iv || hex.EncodeToString(hp) != v.hp {
			t.Errorf("version %x, %s: %x %x %x", v.version, v.side, key, iv, hp)
		}
	}
}

// sealInitial makes a protected Initial; key is the id that the keys follow from.
func sealInitial(version uint32, key, dst, src, token, side, frames string) string {
	first := byte(0xc1) // packet number of 2 bytes
	if version == quicV2 {
		first = 0xd1
	}
	b := binary.BigEndian.AppendUint32([]byte{first}, version)
	b = append(append(b, byte(len(dst))), dst...)
	b = append(append(b, byte(len(src))), src...)
	b = append(append(b, byte(len(token))), token...)
	b = binary.BigEndian.AppendUint16(b, 0x4000|uint16(2+len(frames)+16))
	at := len(b)
	b = append(b, 0, 7)
	k, iv, hp := quicKeys(version, []byte(key), side)
	iv[11] ^= 7
	block, _ := aes.NewCipher(k)
	aead, _ := cipher.NewGCM(block)
	out := append(b[:len(b):len(b)], aead.Seal(nil, iv, []byte(frames), b)...)
	block, _ = aes.NewCipher(hp)
	var mask [16]byte
	block.Encrypt(mask[:], out[at+4:at+20])
	out[0] ^= mask[0] & 0x0f
	out[at] ^= mask[1]
	out[at+1] ^= mask[2]
	return string(out)
}

func cryptoFrame(offset uint16, data string) string {
	b := binary.BigEndian.AppendUint16([]byte{6}, 0x4000|offset)
	return string(binary.BigEndian.AppendUint16(b, 0x4000|uint16(len(data)))) + data
}

func quicLong(kind byte, version uint32, dst, src, rest string) string {
	b := binary.BigEndian.AppendUint32([]byte{0xc0 | kind<<4}, version)
	b = append(append(b, byte(len(dst))), dst...)
	return string(append(append(b, byte(len(src))), src...)) + rest
}

func TestQUIC(t *testing.T) {
	ch := string(handshake(1, chrome().body()))
	half := len(ch) / 2
	pad := strings.Repeat("\x00", 1100-len(ch))
	frames := cryptoFrame(uint16(half), ch[half:]) + "\x01" + cryptoFrame(0, ch[:half]) + pad
	handshakePacket := quicLong(2, quicV1, "client", "server01", "\x40\x40"+strings.Repeat("h", 64))
	for _, version := range []uint32{quicV1, quicV2, quicDraft22, quicDraft22 + 5, quicDraft29, quicFacebook + 1, quicFacebook + 2, quicT050, quicT051} {
		frames := frames
		if version == quicT050 || version == quicT051 {
			frames = strings.Replace("\x08"+frames[1:], "\x01\x06", "\x01\x08", 1)
		}
		initial := sealInitial(version, "original", "original", "client", "", "client in", frames)
		retryType, handshakeType := byte(3), byte(2)
		if version == quicV2 {
			retryType, handshakeType = 0, 3
		}
		converse(t, quic{}, dissect.ProtoUDP, 443, []line{
			{data: initial, kind: dissect.KindRequest, op: "Initial", version: "q13d1516h2_8daaf6152771_e5627efa2ab1"},
			{data: initial, kind: dissect.KindRequest, same: 1},
			{node: true, data: quicLong(retryType, version, "client", "retried1", "token"+strings.Repeat("t", 16)), kind: dissect.KindChallenge, op: "Retry"},
			{data: sealInitial(version, "retried1", "retried1", "client", "token", "client in", frames), kind: dissect.KindRequest},
			{node: true, data: sealInitial(version, "retried1", "client", "server01", "", "server in", "\x02\x00\x00\x00\x00"+cryptoFrame(0, "server hello")) +
				quicLong(handshakeType, version, "client", "server01", "\x40\x40"+strings.Repeat("h", 64)), kind: dissect.KindAccept, op: "Handshake"},
			{data: sealInitial(version, "retried1", "server01", "client", "token", "client in", "\x02\x00\x00\x00\x00"+pad), kind: dissect.KindData},
			{node: true, data: "\x40client" + strings.Repeat("p", 30), kind: dissect.KindData},
		})
	}
	// A hello over two datagrams, the later half first; the second is no repeat, the third is.
	third := len(ch) / 3
	parts := [2]string{cryptoFrame(uint16(third), ch[third:]) + strings.Repeat("\x00", 1100), cryptoFrame(0, ch[:third]) + strings.Repeat("\x00", 1100)}
	one := sealInitial(quicV1, "original", "original", "client", "", "client in", parts[0])
	two := sealInitial(quicV1, "original", "original", "client", "", "client in", parts[1])
	ja4 := func() string { h, _ := quicHello(quicPieces(nil, []byte(cryptoFrame(0, ch)))); return h.JA4('q') }()
	converse(t, quic{}, dissect.ProtoUDP, 443, []line{
		{data: one, kind: dissect.KindRequest, op: "Initial"},
		{data: one, kind: dissect.KindRequest, op: "Initial", same: 1},
		{data: two, kind: dissect.KindProgress, same: 1, version: ja4},
		{data: two, kind: dissect.KindRequest, same: 1},
	})
	if got := scene(t, dissect.ProtoUDP, 443, []wire{{at: 10, data: one}, {at: 11, data: two}, {at: 40, node: true, data: "\x40client" + strings.Repeat("p", 30)}}); !slices.Equal(got, []string{"quic Initial accepted app"}) {
		t.Errorf("a hello in two datagrams: %q", got)
	}
	// Who asks for the versions there are gets a no, and comes again with one of them.
	greased := quicLong(0, 0x1a2a3a4a, "original", "client", strings.Repeat("?", 1200))
	versions := "\x80\x00\x00\x00\x00\x06client\x08original\x00\x00\x00\x01"
	guess(t, quic{}, dissect.ProtoUDP, 443, []line{{data: greased, kind: dissect.KindRequest, op: "Initial"}, {data: greased, kind: dissect.KindRequest, same: 1},
		{node: true, data: versions, kind: dissect.KindRefuse, op: "Version Negotiation"}, {data: sealInitial(quicV1, "original", "original", "client", "", "client in", frames), kind: dissect.KindRequest}})
	if got := scene(t, dissect.ProtoUDP, 443, []wire{{at: 10, data: greased}, {at: 20, node: true, data: versions}, {at: 30, data: sealInitial(quicV1, "original", "original", "client", "", "client in", frames)},
		{at: 40, node: true, data: handshakePacket}}); !slices.Equal(got, []string{"quic Initial refused app", "quic Initial accepted app"}) {
		t.Errorf("versions asked for: %q", got)
	}
	initial := sealInitial(quicV1, "original", "original", "", "", "client in", frames)
	refused := sealInitial(quicV1, "original", "", "server01", "", "server in", "\x02\x00\x00\x00\x00\x1c\x02\x00\x00"+strings.Repeat("\x00", 20))
	converse(t, quic{}, dissect.ProtoUDP, 443, []line{
		{data: initial, kind: dissect.KindRequest},
		{node: true, data: refused, kind: dissect.KindRefuse, op: "CONNECTION_CLOSE"},
	})
	converse(t, quic{}, dissect.ProtoUDP, 443, []line{
		{data: initial, kind: dissect.KindRequest},
		{node: true, data: "\x80\x00\x00\x00\x00\x00\x08original\x6b\x33\x43\xcf\x1a\x2a\x3a\x4a", kind: dissect.KindRefuse, op: "Version Negotiation"},
	})
	converse(t, quic{}, dissect.ProtoUDP, 443, []line{
		{data: initial, kind: dissect.KindRequest},
		{node: true, data: "\x40client" + strings.Repeat("p", 30), kind: dissect.KindAccept, op: "1-RTT"},
		{node: true, data: handshakePacket, kind: dissect.KindData},
	})
	strangers(t, quic{}, dissect.ProtoUDP, 443, "\x40client"+strings.Repeat("p", 30), quicLong(0, 0x0a1a2a3a, "client", "", "\x00\x40\x40"),
		quicLong(0, quicV1, strings.Repeat("x", 21), "", "\x00\x40\x40"+strings.Repeat("x", 64)), "\x80\x00\x00\x00\x00\x00\x08original\x1a\x2a\x3a\x4a")
}

func FuzzQUIC(f *testing.F) {
	fuzzProtocol(f, quic{}, 443, sealInitial(quicV1, "original", "original", "client", "", "client in", cryptoFrame(0, "hello")+strings.Repeat("\x00", 40)),
		"\x80\x00\x00\x00\x00\x00\x08original\x6b\x33\x43\xcf")
}

// FuzzQUICFrames reads arbitrary frames, which otherwise only who knows the keys can make.
func FuzzQUICFrames(f *testing.F) {
	f.Add([]byte(cryptoFrame(0, string(handshake(1, chrome().body())))))
	f.Add([]byte("\x02\x00\x00\x05\x00\x03\x00\x00\x00\x00\x00\x00\x00\x1c\x02\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		quicClosed(b)
		if h, ok := quicHello(quicPieces(nil, b)); ok {
			h.JA4('q')
		}
	})
}
