// Package console is the web page at /console/: what the browser loads, and
// what it has to know before it may ask the API. The page itself, in assets/,
// is plain JavaScript that asks the API of the same address, and nobody else.
package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path"
)

//go:embed assets
var assets embed.FS

// Path is where the page is.
const Path = "/console/"

// Options of the page.
type Options struct {
	// AuthStrategy tells the page whether to ask for a password: keystone or noauth.
	AuthStrategy string
	// Revision is that of the model: while it stays, so does what the API answers.
	Revision func() uint64
}

// file is what the browser loads.
type file struct {
	content []byte
	kind    string
	tag     string
}

// kinds are the content types, by the extension of a file's name.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// Handler serves the page, to GET and HEAD.
func Handler(o Options) (*http.ServeMux, error) {
	mux := http.NewServeMux()
	files, err := load()
	if err != nil {
		return nil, err
	}
	for name, f := range files {
		mux.Handle("GET "+Path+name, f)
	}
	mux.Handle("GET "+Path+"{$}", files["index.html"])
	mux.Handle("GET /console", http.RedirectHandler(Path, http.StatusMovedPermanently))
	mux.HandleFunc("GET "+Path+"config.json", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"auth_strategy": o.AuthStrategy})
	})
	mux.HandleFunc("GET "+Path+"revision.json", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"revision": o.Revision()})
	})
	return mux, nil
}

// load reads all files of the page, by name.
func load() (map[string]*file, error) {
	entries, err := fs.ReadDir(assets, "assets")
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	files := map[string]*file{}
	for _, e := range entries {
		content, err := fs.ReadFile(assets, path.Join("assets", e.Name()))
		if err != nil {
			return nil, fmt.Errorf("console: %w", err)
		}
		kind, ok := kinds[path.Ext(e.Name())]
		if !ok {
			return nil, fmt.Errorf("console: %s has no content type", e.Name())
		}
		sum := sha256.Sum256(content)
		files[e.Name()] = &file{content: content, kind: kind, tag: `"` + hex.EncodeToString(sum[:12]) + `"`}
	}
	return files, nil
}

// policy keeps the browser from asking anybody but us, from running what is not
// one of our files, and from showing the page inside another one.
const policy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"

func writeHeaders(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}

// ServeHTTP implements http.Handler.
func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	writeHeaders(h)
	h.Set("ETag", f.tag)
	h.Set("Cache-Control", "no-cache") // asked again each time, by the tag
	if r.Header.Get("If-None-Match") == f.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.kind)
	h.Set("Content-Length", fmt.Sprint(len(f.content)))
	// A client that went away is all that can fail here.
	_, _ = w.Write(f.content)
}

func writeJSON(w http.ResponseWriter, v any) {
	writeHeaders(w.Header())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// A client that went away is all that can fail here.
	_ = json.NewEncoder(w).Encode(v)
}
