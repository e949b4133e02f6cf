package console

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var update = flag.Bool("update", false, "write the pictures of docs/ anew")

// page is a tab of a real Chromium, with a user's eyes and keys.
type page struct {
	testing.TB
	ctx    context.Context
	origin string

	mu      sync.Mutex
	foreign []string // requests to somebody else
	errors  []string // of the console, and exceptions
	broken  []string // requests without an answer, to be told when something else fails
}

// newPage opens an empty tab in a browser of its own, for a page of an origin.
// When the test ends, nothing may have asked anybody else, and no script failed.
func newPage(tb testing.TB, origin string) *page {
	tb.Helper()
	allocator, stop := chromedp.NewExecAllocator(context.Background(),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.UserDataDir(tb.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("force-color-profile", "srgb"),
		chromedp.WSURLReadTimeout(patience))
	tb.Cleanup(stop)
	p := &page{TB: tb, origin: origin}
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithListener(p.hear))
	tb.Cleanup(func() {
		if tb.Failed() {
			p.mu.Lock()
			broken := slices.Clone(p.broken)
			p.mu.Unlock()
			text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body?.innerText ?? ''"))
			tb.Logf("the page says, error %v, requests without an answer %q:\n%s", err, broken, text)
		}
		if err := chromedp.Cancel(ctx); err != nil {
			tb.Logf("chromium ends: %v", err)
		}
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.foreign) > 0 {
			tb.Errorf("requests to somebody else than %s: %q", origin, p.foreign)
		}
		if len(p.errors) > 0 {
			tb.Errorf("errors of scripts: %q", p.errors)
		}
	})
	p.ctx = ctx
	if err := chromedp.Do(ctx); err != nil { // starts it: a deadline would be its end
		tb.Fatal(err)
	}
	send(p, network.Enable, network.EnableParams{})
	send(p, log.Enable, cdp.Empty{})
	p.size(1280, 800)
	return p
}

// hear notes what must not be.
func (p *page) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		url := e.Request.URL
		if !strings.HasPrefix(url, p.origin+"/") && !strings.HasPrefix(url, "about:") && !strings.HasPrefix(url, "data:") {
			p.foreign = append(p.foreign, url)
		}
	case *network.EventLoadingFailed:
		if !e.Canceled {
			p.broken = append(p.broken, e.ErrorText)
		}
	case *runtime.EventExceptionThrown:
		p.errors = append(p.errors, e.ExceptionDetails.Text+" "+said(e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if e.Type != "error" && e.Type != "assert" {
			return
		}
		for _, arg := range e.Args {
			p.errors = append(p.errors, said(arg))
		}
	case *log.EventEntryAdded:
		// Answers that are no 200 are told here too; the stories know theirs.
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != "network" {
			p.errors = append(p.errors, e.Entry.Text+" "+e.Entry.URL)
		}
	}
}

func said(o *runtime.RemoteObject) string {
	if o == nil {
		return ""
	}
	return o.Description + " " + string(o.Value)
}

// send gives the tab a command.
func send[P, R any](p *page, command cdp.Command[P, R], params P) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if _, err := chromedp.Call(ctx, command, params); err != nil {
		p.Fatal(err)
	}
}

// do acts in the tab.
func (p *page) do(action chromedp.Action[chromedp.Void]) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, action); err != nil {
		p.Fatal(err)
	}
}

// size gives the window a width and a height.
func (p *page) size(width, height int64) {
	p.Helper()
	p.do(chromedp.EmulateViewport(width, height))
}

// scheme is light or dark.
func (p *page) scheme(name string) {
	p.Helper()
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}
	send(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
}

// open goes to a part of the console, as #/hosts.
func (p *page) open(hash string) {
	p.Helper()
	p.do(chromedp.Navigate(p.origin + "/console/" + hash))
}

// press types keys: letters, or the names of others.
func (p *page) press(keys ...string) {
	p.Helper()
	for _, k := range keys {
		event := input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: k, Code: k, WindowsVirtualKeyCode: virtual[k]}
		if virtual[k] == 0 || k == enter {
			event.Text = strings.Replace(k, enter, "\r", 1)
		}
		send(p, input.DispatchKeyEvent, event)
		event.Type, event.Text = input.DispatchKeyEventTypeKeyUp, ""
		send(p, input.DispatchKeyEvent, event)
	}
}

// Keys that have no letter, with what Chromium knows them by.
const (
	enter  = "Enter"
	escape = "Escape"
	down   = "ArrowDown"
)

var virtual = map[string]int64{enter: 13, escape: 27, down: 40}

// click clicks the first element of a selector.
func (p *page) click(selector string) {
	p.Helper()
	p.until("there is "+selector, "document.querySelector("+quoted(selector)+") !== null")
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// evaluate is the value of an expression of JavaScript.
func evaluate[T any](p *page, expression string) T {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for a condition of the page.
func (p *page) until(what, condition string) {
	p.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if evaluate[bool](p, "Boolean("+condition+")") {
			return
		}
		if time.Now().After(deadline) {
			p.Fatalf("waited in vain until %s", what)
		}
	}
}

// says waits until the text of the elements of a selector has a text.
func (p *page) says(selector, text string) {
	p.Helper()
	p.until(fmt.Sprintf("%s says %q", selector, text), fmt.Sprintf(
		"[...document.querySelectorAll(%s)].some((e) => e.textContent.includes(%s))", quoted(selector), quoted(text)))
}

// fits checks that nothing is wider than the window, and that in the drawing no
// text lies on another one or outside of its box, once a new size was taken in.
func (p *page) fits(where string) {
	p.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		bad := evaluate[[]string](p, misplaced)
		if len(bad) == 0 {
			return
		}
		if time.Now().After(deadline) {
			p.Errorf("%s: %s", where, strings.Join(bad, "; "))
			return
		}
	}
}

const misplaced = `(() => {
	const texts = [...document.querySelectorAll('.topology text')].map((e) => ({ e, r: e.getBBox() }));
	const bad = [];
	const { scrollWidth } = document.scrollingElement;
	if (scrollWidth > innerWidth) bad.push(scrollWidth + ' pixels wide in a window of ' + innerWidth);
	for (const e of document.querySelectorAll('.scroll')) if (e.scrollWidth > e.clientWidth + 1) bad.push('a table of ' + e.scrollWidth + ' pixels is cut at ' + e.clientWidth);
	for (const e of document.querySelectorAll('main :is(td, li, dd)')) {
		const r = e.getBoundingClientRect();
		if (r.width > 0 && (r.left < 0 || r.right > innerWidth + 1)) bad.push(e.textContent.slice(0, 40) + ' is cut');
	}
	texts.forEach((a, i) => texts.slice(i + 1).forEach((b) => {
		const x = Math.min(a.r.x + a.r.width, b.r.x + b.r.width) - Math.max(a.r.x, b.r.x);
		const y = Math.min(a.r.y + a.r.height, b.r.y + b.r.height) - Math.max(a.r.y, b.r.y);
		if (x > 1 && y > 2) bad.push(a.e.textContent + ' lies on ' + b.e.textContent);
	}));
	const drawing = document.querySelector('.topology')?.viewBox.baseVal;
	for (const { e, r } of texts) {
		const box = e.parentElement.querySelector(':scope > rect')?.getBBox() ?? drawing;
		const out = r.x < box.x - 1 || r.x + r.width > box.x + box.width + 1 || r.y < box.y - 1 || r.y + r.height > box.y + box.height + 1;
		if (out) bad.push(e.textContent + ' sticks out of its box');
	}
	const boxes = [...document.querySelectorAll('.topology > :is(a, .fold) > rect:first-of-type')].map((e) => ({ e: e.parentElement, r: e.getBBox() }));
	boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b) => {
		const x = Math.min(a.r.x + a.r.width, b.r.x + b.r.width) - Math.max(a.r.x, b.r.x);
		const y = Math.min(a.r.y + a.r.height, b.r.y + b.r.height) - Math.max(a.r.y, b.r.y);
		if (x > 0 && y > 0) bad.push(a.e.textContent + ' covers ' + b.e.textContent);
	}));
	for (const { e, r } of boxes) if (r.x + r.width > drawing.width + 1) bad.push(e.textContent + ' is cut');
	return bad;
})()`

// picture writes what is seen to docs/, when asked for.
func (p *page) picture(name string) {
	p.Helper()
	if !*update {
		return
	}
	shot, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.Fatal(err)
	}
	seen, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		p.Fatal(err)
	}
	var small bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, paletted(seen)); err != nil {
		p.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("..", "..", "docs", "console-"+name+".png"), small.Bytes(), 0o600); err != nil {
		p.Fatal(err)
	}
}

// paletted is a picture in the 256 colours that it has most of.
func paletted(m image.Image) *image.Paletted {
	counts := map[color.RGBA]int{}
	bounds := m.Bounds()
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(m.At(x, y)).(color.RGBA) }
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			counts[at(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(counts), func(a, b color.RGBA) int { return counts[b] - counts[a] })
	var palette color.Palette
	for _, c := range colours[:min(256, len(colours))] {
		palette = append(palette, c)
	}
	index := map[color.RGBA]uint8{}
	for _, c := range colours {
		index[c] = uint8(palette.Index(c))
	}
	p := image.NewPaletted(bounds, palette)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			p.SetColorIndex(x, y, index[at(x, y)])
		}
	}
	return p
}
