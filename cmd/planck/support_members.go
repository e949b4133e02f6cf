package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
)

// members adds what the other members of the cluster say of themselves: their
// bundles without switches, which all members can read.
func (s *support) members(r *http.Request, b *bundle) error {
	alive, dead := s.parts.others()
	for _, a := range s.parts.gather(r, passedOn(r, supportHost), alive) {
		if a.err == nil && a.status != http.StatusOK {
			a.err = fmt.Errorf("it answers %d %s", a.status, http.StatusText(a.status))
		}
		var files []supportFile
		if a.err == nil {
			files, a.err = unpackSupport(a.body)
		}
		if a.err != nil {
			b.lack("member %s could not be asked: %s; planck --url %s://%s support-bundle asks it", a.member.Name, a.err, s.parts.peers.scheme, a.member.API)
		}
		for _, f := range files {
			if err := b.add("members/"+a.member.Name+"/"+f.name, f.text); err != nil {
				return err
			}
		}
	}
	for _, m := range dead {
		b.lack("member %s (%s) is dead: what it knows is not here, its log is on its machine", m.Name, m.API)
	}
	return nil
}

// supportFile is a file of a bundle.
type supportFile struct {
	name string
	text []byte
}

// unpackSupport reads the bundle of another member.
func unpackSupport(packed []byte) (files []supportFile, err error) {
	zip, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	in := tar.NewReader(zip)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(io.LimitReader(in, supportPart))
		if err != nil {
			return nil, err
		}
		files = append(files, supportFile{path.Base(path.Clean("/" + h.Name)), text})
	}
}
