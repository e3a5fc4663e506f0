package capture

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
)

// FilterProgram is a filter that is compiled already: classic BPF for the
// packets of one link type, such as tcpdump -ddd prints. It is an Expr that
// stands alone.
type FilterProgram struct{ Code []bpf.RawInstruction }

func (*FilterProgram) expr() {}

// Opcodes of classic BPF: linux/bpf_common.h, linux/filter.h.
const (
	opLoadAbs   = 0x20 // plus a size
	opLoadInd   = 0x40 // plus a size
	opLoadImm   = 0x00
	opLoadLen   = 0x80
	opLoadMem   = 0x60
	opLoadXImm  = 0x01
	opLoadXMem  = 0x61
	opLoadXLen  = 0x81
	opLoadXHead = 0xb1 // 4 * (byte & 15): the length of an IPv4 header
	opStore     = 0x02
	opStoreX    = 0x03
	opALU       = 0x04 // plus an operation, plus opX
	opJump      = 0x05
	opJumpIf    = 0x05 // plus a comparison, plus opX
	opReturn    = 0x06
	opReturnA   = 0x16
	opToX       = 0x07
	opToA       = 0x87
	opX         = 0x08

	sizeWord, sizeHalf, sizeByte = 0x00, 0x08, 0x10

	aluAdd, aluSub, aluMul, aluDiv, aluOr, aluAnd, aluLsh, aluRsh, aluNeg, aluMod, aluXor = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0
	jumpEq, jumpGt, jumpGe, jumpSet                                                       = 0x10, 0x20, 0x30, 0x40

	// From here on an absolute load means what the kernel knows of a packet
	// beside its bytes.
	extensions = 0xfffff000
	// maxProgram is BPF_MAXINSNS.
	maxProgram = 4096
	scratch    = 16
)

// parseProgram reads what tcpdump -ddd prints: the number of instructions, then
// one a line as four decimal numbers. Commas may stand for the ends of lines.
// ok is false for a text that does not begin like one.
func parseProgram(text string) (p *FilterProgram, ok bool, err error) {
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	first, _, commas := strings.Cut(first, ",")
	count, nan := strconv.Atoi(strings.TrimSpace(first))
	if nan != nil || !commas && !strings.Contains(strings.TrimSpace(text), "\n") {
		return nil, false, nil
	}
	p = &FilterProgram{}
	at := strings.Index(text, first) + len(first)
	fail := func(format string, args ...any) (*FilterProgram, bool, error) {
		return nil, true, &FilterError{Column: min(at, len(text)) + 1, Reason: fmt.Sprintf(format, args...)}
	}
	if count < 1 || count > maxProgram {
		return fail("a program of %d instructions: want 1 to %d", count, maxProgram)
	}
	for at < len(text) {
		at++ // the separator
		end := strings.IndexAny(text[min(at, len(text)):], "\n,")
		if end < 0 {
			end = len(text) - min(at, len(text))
		}
		line := text[min(at, len(text)) : min(at, len(text))+end]
		f := strings.Fields(line)
		if len(f) > 0 {
			if len(f) != 4 {
				return fail("an instruction is four numbers, found %q", strings.TrimSpace(line))
			}
			var n [4]uint64
			for i, bits := range [4]int{16, 8, 8, 32} {
				v, err := strconv.ParseUint(f[i], 10, bits)
				if err != nil {
					return fail("%q is no number of %d bits", f[i], bits)
				}
				n[i] = v
			}
			p.Code = append(p.Code, bpf.RawInstruction{Op: uint16(n[0]), Jt: uint8(n[1]), Jf: uint8(n[2]), K: uint32(n[3])})
		}
		at += end
	}
	if len(p.Code) != count {
		return fail("%d instructions, the first line says %d", len(p.Code), count)
	}
	for i, c := range p.Code {
		if why := checkInstruction(c, count-i-1); why != "" {
			return fail("instruction %d: %s", i, why)
		}
	}
	if last := p.Code[count-1].Op; last != opReturn && last != opReturnA {
		return fail("the last instruction does not return")
	}
	return p, true, nil
}

// checkInstruction says what is wrong with an instruction that rest others follow.
func checkInstruction(c bpf.RawInstruction, rest int) string {
	switch c.Op {
	case opLoadAbs, opLoadAbs | sizeHalf, opLoadAbs | sizeByte, opLoadInd, opLoadInd | sizeHalf, opLoadInd | sizeByte,
		opLoadImm, opLoadLen, opLoadXImm, opLoadXLen, opLoadXHead, opReturn, opReturnA, opToX, opToA:
		return ""
	case opLoadMem, opLoadXMem, opStore, opStoreX:
		if c.K >= scratch {
			return fmt.Sprintf("scratch memory %d, there are %d", c.K, scratch)
		}
		return ""
	case opJump:
		if int64(c.K) >= int64(rest) {
			return "it jumps beyond the end"
		}
		return ""
	}
	op, x := c.Op&0xf0, c.Op&opX != 0
	switch c.Op &^ 0xf8 {
	case opALU:
		switch {
		case op > aluXor:
		case (op == aluDiv || op == aluMod) && !x && c.K == 0:
			return "division by zero"
		case (op == aluLsh || op == aluRsh) && !x && c.K > 31:
			return "a shift by more than 31"
		default:
			return ""
		}
	case opJumpIf:
		if op >= jumpEq && op <= jumpSet {
			if max(int(c.Jt), int(c.Jf)) >= rest {
				return "it jumps beyond the end"
			}
			return ""
		}
	}
	return fmt.Sprintf("unknown opcode %#x", c.Op)
}

// Extended says that the program asks for what only the kernel knows of a
// packet, so that it does for live capture alone.
func (f *FilterProgram) Extended() bool {
	for _, c := range f.Code {
		if c.Op&^0x18 == opLoadAbs && c.K >= extensions {
			return true
		}
	}
	return false
}

// Run says whether a packet passes. As in the kernel, a load beyond its bytes
// and a division by zero end the program: it does not pass. The length of a
// packet is that on the wire, which golang.org/x/net/bpf cannot be told. What
// only the kernel knows is 0.
func (f *FilterProgram) Run(p *Packet) bool { return f.run(p.Data, uint32(p.OrigLen), nil) != 0 }

func (f *FilterProgram) run(b []byte, length uint32, extension func(uint32) uint32) uint32 {
	var a, x uint32
	var mem [scratch]uint32
	for pc := 0; pc < len(f.Code); pc++ {
		c := &f.Code[pc]
		switch c.Op {
		case opReturn:
			return c.K
		case opReturnA:
			return a
		case opLoadImm:
			a = c.K
		case opLoadXImm:
			x = c.K
		case opLoadLen:
			a = length
		case opLoadXLen:
			x = length
		case opLoadMem:
			a = mem[c.K]
		case opLoadXMem:
			x = mem[c.K]
		case opStore:
			mem[c.K] = a
		case opStoreX:
			mem[c.K] = x
		case opToX:
			x = a
		case opToA:
			a = x
		case opJump:
			pc += int(c.K)
		case opLoadXHead:
			if uint64(c.K) >= uint64(len(b)) {
				return 0
			}
			x = uint32(b[c.K]&15) * 4
		case opLoadAbs, opLoadAbs | sizeHalf, opLoadAbs | sizeByte, opLoadInd, opLoadInd | sizeHalf, opLoadInd | sizeByte:
			at := c.K
			if c.Op&opLoadInd != 0 {
				at += x
			} else if at >= extensions {
				a = 0
				if extension != nil {
					a = extension(at - extensions)
				}
				continue
			}
			n := uint64(4)
			switch c.Op & 0x18 {
			case sizeHalf:
				n = 2
			case sizeByte:
				n = 1
			}
			if uint64(at)+n > uint64(len(b)) {
				return 0
			}
			switch n {
			case 1:
				a = uint32(b[at])
			case 2:
				a = uint32(binary.BigEndian.Uint16(b[at:]))
			default:
				a = binary.BigEndian.Uint32(b[at:])
			}
		default:
			v := c.K
			if c.Op&opX != 0 {
				v = x
			}
			if c.Op&7 == opALU {
				switch c.Op & 0xf0 {
				case aluAdd:
					a += v
				case aluSub:
					a -= v
				case aluMul:
					a *= v
				case aluDiv, aluMod:
					if v == 0 {
						return 0
					}
					if c.Op&0xf0 == aluDiv {
						a /= v
					} else {
						a %= v
					}
				case aluOr:
					a |= v
				case aluAnd:
					a &= v
				case aluLsh:
					a <<= v
				case aluRsh:
					a >>= v
				case aluNeg:
					a = -a
				case aluXor:
					a ^= v
				}
				continue
			}
			yes := false
			switch c.Op & 0xf0 {
			case jumpEq:
				yes = a == v
			case jumpGt:
				yes = a > v
			case jumpGe:
				yes = a >= v
			case jumpSet:
				yes = a&v != 0
			}
			if yes {
				pc += int(c.Jt)
			} else {
				pc += int(c.Jf)
			}
		}
	}
	return 0
}
