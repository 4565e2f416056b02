package deploy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func archive(t *testing.T, files ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image.tar")
	if text, err := exec.Command(deploy("image/archive"), append([]string{out, "handoff:1.2.3"}, files...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return []byte(readFile(t, out))
}

func TestTheSameProgramGivesTheSameImage(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "other", "b")
	if err := os.MkdirAll(filepath.Dir(second), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{first: 0o700, second: 0o775} {
		if err := os.WriteFile(path, []byte("program"), mode); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Unix(86_400, 0)
	if err := os.Chtimes(second, old, old); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(archive(t, first), archive(t, second)) {
		t.Error("two archives of the same bytes differ")
	}
	if err := os.WriteFile(second, []byte("another"), 0o755); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(archive(t, first), archive(t, second)) {
		t.Error("archives of different programs are the same")
	}
}

func TestTheImageIsTheProgramAndWhatItIsMadeOfForNobodyInParticular(t *testing.T) {
	program, sbom := filepath.Join(t.TempDir(), "program"), filepath.Join(t.TempDir(), "sbom")
	for _, file := range []string{program, sbom} {
		if err := os.WriteFile(file, []byte(filepath.Base(file)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parts := untar(t, archive(t, program, sbom))
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(parts["manifest.json"].text, &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || len(manifest[0].Layers) != 1 || manifest[0].RepoTags[0] != "handoff:1.2.3" {
		t.Fatalf("%+v", manifest)
	}
	layer := gunzip(t, parts[manifest[0].Layers[0]].text)
	var config object
	if err := json.Unmarshal(parts[manifest[0].Config].text, &config); err != nil {
		t.Fatal(err)
	}
	if ids := config.list("rootfs", "diff_ids"); len(ids) != 1 || ids[0] != fmt.Sprintf("sha256:%x", sha256.Sum256(layer)) {
		t.Errorf("the layer is not the one that is named: %v", ids)
	}
	if config.text("config", "User") != "65532:65532" || config.list("config", "Entrypoint")[0] != "/handoff" {
		t.Error(config)
	}
	files := untar(t, layer)
	want := map[string]part{"handoff": {0o755, []byte("program")}, "handoff.cdx.json": {0o644, []byte("sbom")}}
	if !reflect.DeepEqual(files, want) {
		t.Errorf("%v", files)
	}
}

func gunzip(t *testing.T, text []byte) []byte {
	t.Helper()
	reader, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

type part struct {
	mode int64
	text []byte
}

// untar are the files of an archive by name.
func untar(t *testing.T, text []byte) map[string]part {
	t.Helper()
	files := map[string]part{}
	reader := tar.NewReader(bytes.NewReader(text))
	for {
		head, err := reader.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if head.Typeflag == tar.TypeDir {
			continue
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(head.Name, "./")] = part{head.Mode, content}
	}
}
