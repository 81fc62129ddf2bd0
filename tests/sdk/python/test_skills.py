"""Skills: checklist 144, 145, 146; and what the format's own validator says of samples, beside ours."""

import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import anthropic
from anthropic.lib import files_from_dir

from harness import BINARY, DEADLINE, TOOLSET, Case, call, only, text

READ = call("read", file_path="/mnt/session/skills/demo/SKILL.md")


def skill_md(name, description="Does it.", more=""):
    return f"---\nname: {name}\ndescription: {description}\n{more}---\n\nDo it the {name} way.\n"


def files(name, **fields):
    return [
        (f"{name}/SKILL.md", skill_md(name, **fields).encode(), "text/markdown"),
        (f"{name}/scripts/run.py", b"#!/usr/bin/env python3\nprint('it ran')\n"),
    ]


def zipped(entries):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content, *_ in entries:
            archive.writestr(path, content)
    return packed.getvalue()


class Skills(Case):
    made = 0

    def name(self):
        """Names are unique on a server, and tests share one."""
        Skills.made += 1
        return f"{self.id().rsplit('.', 1)[-1].removeprefix('test_').replace('_', '-')[:48]}-{Skills.made}"

    def put(self, name=None, **fields):
        return self.beta.skills.create(files=files(name or self.name(), **fields))

    def test_144_create_from_files_and_from_zip(self):
        skills = self.beta.skills
        for n, upload in enumerate((lambda name: files(name), lambda name: [("skill.zip", zipped(files(name)))])):
            name = self.name()
            made = skills.create(files=upload(name), display_name=f"Label {n}")
            self.assertEqual((made.type, made.display_name, made.source.type), ("skill", f"Label {n}", "custom"))
            self.assertEqual(skills.retrieve(made.id), made)
            self.assertIn(made, list(skills.list(source="custom")))
            version = skills.versions.retrieve("latest", skill_id=made.id)
            self.assertEqual((version.name, version.description, version.skill_id), (name, "Does it.", made.id))
        self.assertEqual(list(skills.list(source="anthropic")), [])

    def test_144_without_skill_md_or_with_two_roots(self):
        name = self.name()
        good = files(name)
        for wrong, expected in (
            (good[1:], "SKILL.md: is not there"),
            (good + [("other/a.txt", b"x")], "has the top directory `other`"),
            (good + [(f"{name}/../a.txt", b"x")], "must not have `.` or `..` in it"),
            ([(f"{name}/SKILL.md", b"---\nname: x\n---\n")], "description: is missing"),
            ([("a.zip", b"no zip")], "the zip file is none"),
        ):
            message = self.refused(anthropic.BadRequestError, self.beta.skills.create, files=wrong)
            self.assertIn(expected, message)

    def test_a_directory_is_uploaded_by_the_helper_of_the_sdk(self):
        name = self.name()
        with tempfile.TemporaryDirectory() as place:
            directory = Path(place, name)
            directory.mkdir()
            (directory / "SKILL.md").write_text(skill_md(name))
            made = self.beta.skills.create(files=files_from_dir(directory))
        self.assertEqual(made.display_name, name)

    def test_the_stable_alias_reaches_the_same_skills(self):
        made = self.client.skills.create(files=files(self.name()))
        self.assertEqual(self.beta.skills.retrieve(made.id).id, made.id)

    def test_145_names_versions_and_downloads(self):
        name = self.name()
        made = self.put(name)
        versions = self.beta.skills.versions
        message = self.refused(anthropic.BadRequestError, versions.create, made.id, files=files(self.name()))
        self.assertIn(f"it is `{name}`", message)
        with self.assertRaises(anthropic.ConflictError) as caught:
            self.put(name)
        self.assertEqual(caught.exception.body["error"]["details"]["error_code"], "skill_name_taken")
        second = versions.create(made.id, files=files(name, description="Does more."))
        self.assertEqual(versions.retrieve("latest", skill_id=made.id), second)
        self.assertEqual([one.id for one in versions.list(made.id, limit=1)], [second.id, made.latest_version_id])
        with zipfile.ZipFile(io.BytesIO(versions.download(made.latest_version_id, skill_id=made.id).read())) as archive:
            self.assertIsNone(archive.testzip())
            self.assertEqual({path: archive.read(path) for path in archive.namelist()}, {path: content for path, content, *_ in files(name)})

    def test_146_deleting_moves_the_latest_version(self):
        name = self.name()
        made = self.put(name)
        skills = self.beta.skills
        second = skills.versions.create(made.id, files=files(name))
        self.assertEqual(skills.retrieve(made.id).latest_version_id, second.id)
        deleted = skills.versions.delete(second.id, skill_id=made.id)
        self.assertEqual((deleted.id, deleted.type), (second.id, "skill_version_deleted"))
        self.assertEqual(skills.retrieve(made.id).latest_version_id, made.latest_version_id)
        self.refused(anthropic.NotFoundError, skills.versions.retrieve, second.id, skill_id=made.id)
        message = self.refused(
            anthropic.BadRequestError, skills.versions.delete, made.latest_version_id, skill_id=made.id
        )
        self.assertIn("is the only version", message)
        deleted = skills.delete(made.id)
        self.assertEqual((deleted.id, deleted.type), (made.id, "skill_deleted"))
        self.refused(anthropic.NotFoundError, skills.retrieve, made.id)

    def test_146_a_skill_in_use_can_be_deleted_and_its_sessions_keep_it(self):
        made = self.put("demo")
        skills = [{"type": "custom", "skill_id": made.id}]
        fields = {"tools": [TOOLSET], "skills": skills}
        session = self.session(READ, {"text": "done"}, READ, {"text": "done"}, message="go", agent_fields=fields)
        [shown] = session.agent.skills
        self.assertEqual((shown.type, shown.skill_id, shown.version), ("custom", made.id, made.latest_version_id))
        self.settled(session)
        self.beta.skills.delete(made.id)
        self.beta.sessions.events.send(session.id, events=[text("again")])
        self.idles(session, 2)
        results = only(self.events(session), "agent.tool_result")
        self.assertEqual(len(results), 2)
        for result in results:
            self.assertIn("Do it the demo way.", result.content[0].text)
        message = self.refused(
            anthropic.NotFoundError,
            self.beta.sessions.create,
            agent=session.agent.id,
            environment_id=session.environment_id,
        )
        self.assertEqual(message, f"agent.skills[0]: there is no skill `{made.id}`")

    def test_skills_of_the_hosted_service_are_refused_by_name(self):
        skills = [{"type": "anthropic", "skill_id": "xlsx"}]
        agent = self.agent(tools=[TOOLSET], skills=skills)
        self.assertEqual(agent.skills[0].version, "latest")
        create = self.beta.sessions.create
        message = self.refused(
            anthropic.BadRequestError, create, agent=agent.id, environment_id=self.environment().id
        )
        self.assertTrue(message.startswith("agent.skills[0]: `xlsx` is a skill of the hosted service"), message)

    def test_the_async_client_does_the_same(self):
        import asyncio

        async def work():
            async with self.server.async_client() as client:
                made = await client.beta.skills.create(files=files(self.name()))
                self.assertIn(made.id, [skill.id async for skill in client.beta.skills.list()])
                content = await client.beta.skills.versions.download("latest", skill_id=made.id)
                self.assertTrue(zipfile.is_zipfile(io.BytesIO(await content.read())))
                await client.beta.skills.delete(made.id)

        asyncio.run(work())


class Samples(Case):
    """The format's own validator is strict, and so is `casemate skills check`."""

    SAMPLES = {
        "good": (True, skill_md("good")),
        "all-fields": (
            True,
            skill_md("all-fields", more="license: MIT\ncompatibility: python3\nallowed-tools: Read\nmetadata:\n  v: 1.10\n"),
        ),
        "folded": (True, skill_md("folded", description=">\n  Two\n  lines.")),
        "numbers": (True, skill_md("numbers", description="42")),
        "no-description": (False, "---\nname: no-description\n---\n"),
        "no-name": (False, "---\ndescription: d\n---\n"),
        "empty": (False, skill_md("empty", description="''")),
        "other": (False, skill_md("another")),
        "Capitals": (False, skill_md("Capitals")),
        "two--hyphens": (False, skill_md("two--hyphens")),
        "under_score": (False, skill_md("under_score")),
        "n" * 65: (False, skill_md("n" * 65)),
        "long": (False, skill_md("long", description="x" * 1025)),
        "longer": (False, skill_md("longer", more=f"compatibility: {'x' * 501}\n")),
        "unknown": (False, skill_md("unknown", more="model: big\n")),
        "colon": (False, skill_md("colon", description="Use it: always")),
        "no-head": (False, "# No head\n"),
        "open-head": (False, "---\nname: open-head\ndescription: d\n"),
        "a-list": (False, "---\n- name\n---\n"),
    }

    def test_both_validators_agree_on_every_sample(self):
        validator = Path(sys.executable).with_name("agentskills")
        with tempfile.TemporaryDirectory() as place:
            for name, (good, content) in self.SAMPLES.items():
                directory = Path(place, name)
                directory.mkdir()
                (directory / "SKILL.md").write_text(content)
                for command in ([validator, "validate", directory], [BINARY, "skills", "check", directory]):
                    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=self.server.env)
                    self.assertEqual(done.returncode == 0, good, f"{command}: {done.stdout}{done.stderr}")
