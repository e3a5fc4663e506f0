package replay

import (
	"bufio"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Login is what a client proves itself with. It is given for the run; nothing
// is ever taken from a capture, and no result holds it.
type Login struct {
	User, Password string // SIP, TURN
	// A Nebula certificate as handshakes carry it, without its public key.
	certificate, publicKey []byte
}

// ReadCredentials reads the logins of a run: lines user:password (the user may
// have a domain, user@example.org), or certificates of Nebula as nebula-cert
// writes them, one or several. Errors name the line.
func ReadCredentials(r io.Reader) (list []Login, err error) {
	text, err := io.ReadAll(io.LimitReader(r, 64<<20))
	if err != nil {
		return nil, err
	}
	if block, rest := pem.Decode(text); block != nil {
		for ; block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "NEBULA CERTIFICATE" {
				return nil, fmt.Errorf("a block of %q: want certificates of Nebula, version 1; secret keys are not needed", block.Type)
			}
			l, err := nebulaLogin(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("certificate %d: %w", len(list)+1, err)
			}
			list = append(list, l)
		}
		return list, nil
	}
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		user, password, ok := strings.Cut(line, ":")
		if !ok || user == "" || strings.ContainsAny(user, " <>\"\r") {
			return nil, fmt.Errorf("line %d: want user:password", n)
		}
		list = append(list, Login{User: user, Password: password})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New("no credentials in it: want lines user:password, or certificates of Nebula")
	}
	return list, nil
}

// nebulaLogin takes the public key out of a certificate (cert.proto of
// slackhq/nebula: 1 details { 7 public key }, 2 signature): a handshake carries
// the key before the certificate.
func nebulaLogin(b []byte) (l Login, err error) {
	bad := errors.New("not a certificate of Nebula, version 1")
	fields := func(b []byte, visit func(number int, whole, body []byte)) error {
		for len(b) > 0 {
			key, n := binary.Uvarint(b)
			if n <= 0 {
				return bad
			}
			v, k := binary.Uvarint(b[n:])
			if k <= 0 {
				return bad
			}
			end := n + k
			if key&7 == 2 {
				if v > uint64(len(b)-end) {
					return bad
				}
				end += int(v)
			} else if key&7 != 0 {
				return bad
			}
			visit(int(key>>3), b[:end], b[n+k:end])
			b = b[end:]
		}
		return nil
	}
	var inner error
	err = fields(b, func(number int, whole, body []byte) {
		if number != 1 {
			l.certificate = append(l.certificate, whole...)
			return
		}
		var details []byte
		inner = fields(body, func(number int, whole, body []byte) {
			if number == 7 {
				l.publicKey = append([]byte(nil), body...)
				return
			}
			details = append(details, whole...)
		})
		l.certificate = appendField(l.certificate, 1, details)
	})
	if err = errors.Join(err, inner); err == nil && len(l.publicKey) != 32 {
		err = bad
	}
	return l, err
}
