package overlay

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"squall/dissect"
	"squall/samples"
)

// sources are the files of this package, parsed.
func sources(t *testing.T) (files map[string]*ast.File) {
	t.Helper()
	files = map[string]*ast.File{}
	set := token.NewFileSet()
	list, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		f, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = f
	}
	return files
}

// shown is what the tests show of a type: the transports of its conversations,
// whether it is fuzzed, and the kinds of messages in the files of its conversations.
type shown struct {
	over   map[string]bool
	fuzzed bool
	kinds  map[string]bool
}

// wanted are the kinds of messages that a word of Description.Outcomes speaks of.
var wanted = map[string]string{"accepted": "KindAccept", "challenge": "KindChallenge", "refused": "KindRefuse", "throttled": "KindThrottle",
	"redirected": "KindRedirect", "refresh": "KindRefresh", "close": "KindClose", "lost": "KindLost"}

// A source is a numbered document, a document of the project's, or a section of
// the reference of wire formats.
var source = regexp.MustCompile(`RFC \d|BEP \d|protocols\.md [A-I]|draft-|docs\.|OASIS|specs?/|\w+\.(go|md|c|h|hpp)\b|[sS]ources?:`)

// TestWhole: each protocol names its source, draws its header, has conversations
// (which are cut at every byte) and a sample over each of its transports, and shows
// every answer that it says it tells apart. A fuzz target reads it.
func TestWhole(t *testing.T) {
	files := sources(t)
	docs, tests, asked := map[string]string{}, map[string]*shown{}, map[string]bool{}
	of := func(name string) *shown {
		if tests[name] == nil {
			tests[name] = &shown{over: map[string]bool{}, kinds: map[string]bool{}}
		}
		return tests[name]
	}
	typeOf := func(e ast.Expr) string {
		if c, ok := e.(*ast.CompositeLit); ok {
			if id, ok := c.Type.(*ast.Ident); ok {
				return id.Name
			}
		}
		return ""
	}
	for name, f := range files {
		test := strings.HasSuffix(name, "_test.go")
		var spoken []string
		kinds := map[string]bool{}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GenDecl:
				for _, s := range n.Specs {
					if s, ok := s.(*ast.TypeSpec); ok && !test {
						docs[s.Name.Name] = n.Doc.Text()
					}
				}
			case *ast.SelectorExpr:
				kinds[n.Sel.Name] = true
			case *ast.CallExpr:
				id, ok := n.Fun.(*ast.Ident)
				switch {
				case !ok || !test:
				case (id.Name == "converse" || id.Name == "guess") && typeOf(n.Args[1]) != "":
					spoken = append(spoken, typeOf(n.Args[1]))
					if over, ok := n.Args[2].(*ast.SelectorExpr); ok {
						of(typeOf(n.Args[1])).over[over.Sel.Name] = true
					}
				case id.Name == "fuzzProtocol":
					of(typeOf(n.Args[1])).fuzzed = true
				case id.Name == "described":
					asked[n.Args[1].(*ast.BasicLit).Value+" "+n.Args[2].(*ast.BasicLit).Value] = true
				}
			}
			return true
		})
		for _, s := range spoken {
			for k := range kinds {
				of(s).kinds[k] = true
			}
		}
	}
	sampled := map[string]bool{}
	for _, c := range samples.Conversations() {
		sampled[c.Protocol+map[bool]string{true: " ProtoUDP", false: " ProtoTCP"}[c.UDP]] = true
	}
	nth := map[string]int{}
	for _, p := range All() {
		name := p.Name()
		over := []string{}
		if p.Transports()&dissect.TCP != 0 {
			over = append(over, "ProtoTCP")
		}
		if p.Transports()&dissect.UDP != 0 {
			over = append(over, "ProtoUDP")
		}
		for _, o := range over {
			if !sampled[name+" "+o] {
				t.Errorf("%s: no sample over %s", name, o)
			}
		}
		if _, ok := p.(*signature); ok { // FuzzBuiltin reads them all
			if key := strconv.Quote(name) + " " + strconv.Itoa(nth[name]); !asked[key] {
				t.Errorf("%s: no test has a conversation with signature %d", name, nth[name])
			}
			nth[name]++
			continue
		}
		kind := reflect.TypeOf(p).Name()
		s := of(kind)
		switch doc := docs[kind]; {
		case !source.MatchString(doc):
			t.Errorf("%s names no source", name)
		case !strings.Contains(doc, "\n\t"):
			t.Errorf("%s draws no header", name)
		}
		if !s.fuzzed {
			t.Errorf("%s: no fuzz target", name)
		}
		for _, o := range over {
			if !s.over[o] {
				t.Errorf("%s: no conversation over %s", name, o)
			}
		}
		for _, word := range strings.FieldsFunc(descriptions[name].Outcomes, func(r rune) bool { return r < 'a' || r > 'z' }) {
			if k := wanted[word]; k != "" && !s.kinds[k] {
				t.Errorf("%s says that it tells %q apart; no conversation shows it", name, word)
			}
		}
	}
	// The files of the built-in signatures say their sources, too.
	list, err := fs.Glob(signatures, "signatures/*.yaml")
	if err != nil || len(list) == 0 {
		t.Fatal(err)
	}
	for _, name := range list {
		b, err := fs.ReadFile(signatures, name)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(b), "\n")
		head := strings.Join(lines[:slices.IndexFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "#") })], "\n")
		if !source.MatchString(head) || !strings.Contains(head, "\n#   ") {
			t.Errorf("%s: no source or no header in its first lines", name)
		}
	}
}
