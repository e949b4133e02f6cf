package controller

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The wall clock jumps: time.Now keeps the monotonic clock beside it, and Sub,
// Since, Before and timers use that, unless it was lost on the way. So no
// program code takes a time apart, or makes one that has no monotonic part.
func TestNoDurationIsMeasuredByTheWallClock(t *testing.T) {
	forbidden := map[string]bool{
		"Unix": true, "UnixNano": true, "UnixMilli": true, "UnixMicro": true,
	}
	for _, dir := range []string{"controller", "ovsdb", "network", "northbound", "pipeline", "flows", "cmd/planck"} {
		files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, name, source, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if selector, ok := call.Fun.(*ast.SelectorExpr); ok && forbidden[selector.Sel.Name] {
					t.Errorf("%s: %s loses the monotonic clock", set.Position(call.Pos()), selector.Sel.Name)
				}
				return true
			})
		}
	}
}
